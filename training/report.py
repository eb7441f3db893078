"""What a training run shows for itself: metrics.json, report.md and the curves as PNG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from training.config import Config
from training.dataset import Prepared
from training.evaluate import Evaluation
from training.runs import Result

_SHOWN = ("hr", "ndcg", "mrr", "recall", "precision", "coverage", "novelty")


@dataclass(frozen=True, slots=True)
class ProtocolReport:
    """Everything measured under one protocol."""

    protocol: str
    meaning: str
    """What trains and what is predicted, in a sentence."""
    baselines: Sequence[Evaluation]
    results: Sequence[Result]
    """One per seed; none if no model was trained for this protocol."""

    @property
    def users(self) -> int:
        """Users judged."""
        return self.baselines[0].users

    def mean(self, metric: str) -> float:
        """Mean of a test metric over the seeds."""
        return fmean(result.test.metrics[metric] for result in self.results)

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None for a single one."""
        values = [result.test.metrics[metric] for result in self.results]
        return stdev(values) if len(values) > 1 else None


def write_report(
    folder: Path, config: Config, prepared: Prepared, protocols: Sequence[ProtocolReport]
) -> None:
    """Writes metrics.json, loss.png and validation_ndcg.png, then report.md, replacing older ones.

    Does nothing if the texts are there as they would be: Matplotlib alone takes longer than all else here.
    """
    metrics = json.dumps(_metrics(prepared, protocols), indent=1) + "\n"
    report = "\n".join(_markdown(config, prepared, protocols)) + "\n"
    if _holds(folder / "metrics.json", metrics) and _holds(folder / "report.md", report):
        return
    (folder / "report.md").unlink(missing_ok=True)  # it stands for all four
    _replace(folder / "metrics.json", metrics)
    _draw(folder, [result for protocol in protocols for result in protocol.results])
    _replace(folder / "report.md", report)


def print_summary(console: Console, folder: Path, protocols: Sequence[ProtocolReport], cutoff: int) -> None:
    """The main figures as a table, and where the report is."""
    for protocol in protocols:
        table = Table(title=f"Test, {protocol.protocol} ({protocol.users:,} users)", title_justify="left")
        for column in ("", f"HR@{cutoff}", f"NDCG@{cutoff}", f"coverage@{cutoff}"):
            table.add_column(column, justify="left" if not column else "right")
        names = [f"{metric}@{cutoff}" for metric in ("hr", "ndcg", "coverage")]
        for evaluation in protocol.baselines:
            table.add_row(evaluation.ranker, *(f"{evaluation.metrics[name]:.4f}" for name in names))
        for result in protocol.results:
            row = (f"{result.test.metrics[name]:.4f}" for name in names)
            table.add_row(f"transformer, seed {result.seed}", *row)
        if len(protocol.results) > 1:
            row = (_with_deviation(protocol, name) for name in names)
            table.add_row(f"mean ± sd, {len(protocol.results)} seeds", *row, style="bold")
        console.print(table)
        if not protocol.results:
            console.print("No transformer was trained for this protocol; --time-split does.")
    console.print(f"report: {folder / 'report.md'}", soft_wrap=True, highlight=False)


def _metrics(prepared: Prepared, protocols: Sequence[ProtocolReport]) -> dict[str, Any]:
    return {
        "data_fingerprint": prepared.fingerprint,
        "protocols": {
            protocol.protocol: {
                "users": protocol.users,
                "baselines": {evaluation.ranker: evaluation.metrics for evaluation in protocol.baselines},
                "transformer": {
                    "seeds": {
                        str(result.seed): {
                            "test": result.test.metrics,
                            "validation": result.validation.metrics,
                            "best_epoch": result.best_epoch,
                            "epochs": len(result.curve),
                            "seconds": round(result.seconds, 1),
                            "cpu_seconds": round(result.cpu_seconds, 1),
                        }
                        for result in protocol.results
                    },
                    "mean": {name: protocol.mean(name) for name in protocol.results[0].test.metrics},
                    "sd": {name: protocol.deviation(name) for name in protocol.results[0].test.metrics},
                }
                if protocol.results
                else None,
            }
            for protocol in protocols
        },
    }


def _markdown(config: Config, prepared: Prepared, protocols: Sequence[ProtocolReport]) -> Iterator[str]:
    model, training = config.model, config.training
    yield f"# {config.data.name}: evaluation"
    yield ""
    yield (
        f"{len(prepared.items):,} items. Transformer of {model.layers} × {model.width} (layers × width), "
        f"{model.heads} heads, {model.history} events of history, dropout {model.dropout}; AdamW, "
        f"learning rate {training.learning_rate}, batches of {training.batch_size} windows, at most "
        f"{training.epochs} epochs, stopped after {training.patience} without a better validation NDCG@10."
    )
    yield ""
    yield (
        "Every item of the catalogue is ranked for each user; items that the user had before are masked. "
        "The weights are those of the epoch with the best validation NDCG@10; the test part has no say in "
        "that. Model and baselines go through the same code. Novelty is the mean self-information "
        "of the items shown, in bits."
    )
    for protocol in protocols:
        yield ""
        yield f"## {protocol.protocol.capitalize()}"
        yield ""
        yield f"{protocol.meaning} {protocol.users:,} users are judged."
        yield ""
        yield from _tables(protocol)
        if not protocol.results:
            yield ""
            yield "No transformer was trained for this protocol: `--time-split` does."
    if any(protocol.results for protocol in protocols):
        yield ""
        yield "## Curves"
        yield ""
        yield "![Training loss](loss.png) ![Validation NDCG@10](validation_ndcg.png)"


def _tables(protocol: ProtocolReport) -> Iterator[str]:
    cutoffs = sorted({int(name.split("@")[1]) for name in protocol.baselines[0].metrics})
    for k in cutoffs:
        yield f"| @{k} | " + " | ".join(_SHOWN) + " |"
        yield "|---|" + "---:|" * len(_SHOWN)
        for evaluation in protocol.baselines:
            yield _row(evaluation.ranker, [f"{evaluation.metrics[f'{m}@{k}']:.4f}" for m in _SHOWN])
        if protocol.results:
            seeds = ", ".join(str(result.seed) for result in protocol.results)
            label = f"transformer (seed {seeds})" if len(protocol.results) == 1 else "transformer, mean ± sd"
            yield _row(f"**{label}**", [_with_deviation(protocol, f"{m}@{k}") for m in _SHOWN])
        yield ""
    if protocol.results:
        yield "| seed | HR@10 | NDCG@10 | validation NDCG@10 | best epoch | epochs | training | CPU time |"
        yield "|---|" + "---:|" * 7
    for result in protocol.results:
        best = result.curve[result.best_epoch - 1]
        figures = [result.test.metrics.get("hr@10", 0.0), result.test.metrics.get("ndcg@10", 0.0)]
        yield _row(
            str(result.seed),
            [f"{value:.4f}" for value in (*figures, best.validation_ndcg)]
            + [str(result.best_epoch), str(len(result.curve))]
            + [f"{result.seconds:.0f} s", f"{result.cpu_seconds:.0f} s"],
        )


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _with_deviation(protocol: ProtocolReport, metric: str) -> str:
    deviation = protocol.deviation(metric)
    return f"{protocol.mean(metric):.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def _draw(folder: Path, results: Sequence[Result]) -> None:
    if not results:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name, label in (("loss", "training loss, nats"), ("validation_ndcg", "validation NDCG@10")):
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for result in results:
            epochs = [epoch.epoch for epoch in result.curve]
            axes.plot(
                epochs, [getattr(e, name) for e in result.curve], label=f"{result.split}, seed {result.seed}"
            )
            axes.axvline(result.best_epoch, color=axes.lines[-1].get_color(), linestyle=":", linewidth=1)
        axes.set(xlabel="epoch", ylabel=label)
        axes.legend()
        figure.tight_layout()
        draft = folder / f"{name}.draft.png"
        figure.savefig(draft, dpi=120)
        draft.replace(folder / f"{name}.png")
        pyplot.close(figure)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
