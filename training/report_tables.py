"""The tables of one protocol, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev

from training.protocol_report import ProtocolReport
from training.significance import RESAMPLES

_COLUMNS = {
    "hr": "HR",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "recall": "recall",
    "precision": "precision",
    "coverage": "coverage",
    "novelty": "novelty",
    "intra_list_distance": "distance",
    "popularity": "popularity",
    "gini": "Gini",
}
_SHORT = {"hr": "HR", "ndcg": "NDCG"}


def protocol_tables(protocol: ProtocolReport) -> Iterator[str]:
    """The rankers, the seeds, the slices and the significance."""
    yield from _rankers(protocol)
    if protocol.results:
        yield from _seeds(protocol)
    else:
        yield "No transformer was trained for this protocol: `--time-split` does."
    yield ""
    yield from _slices(protocol)
    if protocol.significance:
        yield ""
        yield from _significance(protocol)


def with_deviation(protocol: ProtocolReport, metric: str) -> str:
    """Mean ± sd over the seeds, the mean alone for one seed, a dash for what could not be measured."""
    if metric not in protocol.results[0].test.metrics:
        return "–"
    return mean_and_deviation([result.test.metrics[metric] for result in protocol.results])


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation; the mean alone for one value."""
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def heading(columns: Sequence[str]) -> Iterator[str]:
    """The two lines that begin a table; all columns but the first are of numbers."""
    yield "| " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * (len(columns) - 1)


def row(name: str, cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {name} | " + " | ".join(cells) + " |"


def _rankers(protocol: ProtocolReport) -> Iterator[str]:
    for k in protocol.cutoffs:
        yield from heading([f"@{k}", *_COLUMNS.values()])
        for evaluation in protocol.baselines:
            yield row(evaluation.ranker, [_figure(evaluation.metrics, f"{name}@{k}") for name in _COLUMNS])
        if protocol.results:
            seeds = ", ".join(str(result.seed) for result in protocol.results)
            which = f" (seed {seeds})" if len(protocol.results) == 1 else ", mean ± sd"
            cells = [with_deviation(protocol, f"{name}@{k}") for name in _COLUMNS]
            yield row(f"**{protocol.model}{which}**", cells)
        yield ""


def _seeds(protocol: ProtocolReport) -> Iterator[str]:
    k = protocol.cutoff
    yield from heading(
        ["seed", f"HR@{k}", f"NDCG@{k}", "validation NDCG@10", "best epoch", "epochs", "training", "CPU time"]
    )
    for result in protocol.results:
        best = result.curve[result.best_epoch - 1]
        figures = [result.test.metrics[f"hr@{k}"], result.test.metrics[f"ndcg@{k}"], best.validation_ndcg]
        yield row(
            str(result.seed),
            [f"{value:.4f}" for value in figures]
            + [str(result.best_epoch), str(len(result.curve))]
            + [f"{result.seconds:.0f} s", f"{result.cpu_seconds:.0f} s"],
        )


def _slices(protocol: ProtocolReport) -> Iterator[str]:
    yield "### Slices"
    yield ""
    yield (
        "By the events known of the user, and by the popularity of the target among the items of the "
        "training part (decile 1: the least popular tenth; cold: nobody had it). A user with several targets "
        "counts in the slice of each, judged there by these targets alone."
    )
    for metric, label in _SHORT.items():
        name = f"{metric}@{protocol.cutoff}"
        yield ""
        yield from heading([f"{label}@{protocol.cutoff}", "users", *protocol.slices])
        for same in zip(*protocol.slices.values(), strict=True):
            yield row(same[0].name, [f"{same[0].users:,}", *(f"{one.metrics[name]:.4f}" for one in same)])


def _significance(protocol: ProtocolReport) -> Iterator[str]:
    seeds = len(protocol.results)
    yield "### Significance"
    yield ""
    yield (
        f"The {protocol.model}, {f'each user by the mean over {seeds} seeds' if seeds > 1 else 'one seed'}, "
        f"against the baseline that is best on the test part: paired bootstrap over the users, {RESAMPLES:,} "
        "resamples (Efron & Tibshirani 1993; Sakai, SIGIR 2006), p two-sided."
    )
    yield ""
    yield from heading(
        ["metric", protocol.model, "best baseline", "baseline", "difference", "95 % interval", "p"]
    )
    for against in protocol.significance:
        found = against.difference
        metric, k = found.metric.split("@")
        yield row(
            f"{_SHORT[metric]}@{k}",
            [
                f"{found.first:.4f}",
                against.baseline,
                f"{found.second:.4f}",
                f"{found.difference:+.4f}",
                f"{found.low:+.4f} to {found.high:+.4f}",
                f"{found.p:.4f}",
            ],
        )


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "–"
