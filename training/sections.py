"""Further sections of a report: each brings its text, its figures for metrics.json and its plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.calibration import Calibration
from training.plots import DiversityPoint, plot_calibration, plot_diversity
from training.report_tables import heading, mean_and_deviation, row
from training.results import Ranking, Result
from training.run_pages import ReasonTrial


@dataclass(frozen=True, slots=True)
class Section:
    """A section after those of the protocols, in the order given."""

    key: str
    """Its name in metrics.json, under `sections`."""
    title: str
    lines: Sequence[str]
    """Markdown without the heading."""
    figures: Mapping[str, Any]
    """JSON-able; all that the plots show, as a report with the same texts is not drawn again."""
    plots: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    """File name → what draws it to a path; each is shown below the lines."""


def ranking_section(results: Sequence[Result], cutoff: int) -> Section:
    """The retrieval alone beside the retrieval with the ranking network, of each seed.

    Args:
        results: at least one; those without a ranking network are left out of the means of both.
        cutoff: the k of the metrics.
    """
    metrics = {"HR": f"hr@{cutoff}", "NDCG": f"ndcg@{cutoff}"}
    columns = [f"{part} {name}@{cutoff}" for part in ("validation", "test") for name in metrics]
    lines = [
        f"Served is the ranking network of a seed if it improves the validation NDCG@{cutoff} of that seed; "
        "the test part has no say in that.",
        "",
        *heading(["", *columns, "served, and why"]),
    ]

    def figures(result: Result, ranking: Ranking | None) -> list[float]:
        validation = ranking.validation if ranking else result.retrieval_validation
        test = ranking.test if ranking else result.retrieval_test
        return [part.metrics[name] for part in (validation, test) for name in metrics.values()]

    for result in results:
        alone = [f"{value:.4f}" for value in figures(result, None)]
        lines.append(
            row(f"seed {result.seed}, retrieval", [*alone, "" if result.ranking else "yes, trained alone"])
        )
        if result.ranking is not None:
            both = [f"{value:.4f}" for value in figures(result, result.ranking)]
            lines.append(
                row(f"seed {result.seed}, with ranking", [*both, _verdict(result, result.ranking, cutoff)])
            )
    compared = [result for result in results if result.ranking is not None]
    if len(compared) > 1:
        seeds = f"mean ± sd, seeds {', '.join(str(result.seed) for result in compared)}"
        for name, rows in (
            ("retrieval", [figures(result, None) for result in compared]),
            ("with ranking", [figures(result, result.ranking) for result in compared]),
        ):
            cells = [mean_and_deviation(values) for values in zip(*rows, strict=True)]
            lines.append(row(f"**{seeds}: {name}**", [*cells, ""]))
    return Section(
        key="ranking",
        title="Retrieval and ranking",
        lines=lines,
        figures={
            str(result.seed): {
                "retrieval": dict(zip(columns, figures(result, None), strict=True)),
                "ranking": dict(zip(columns, figures(result, result.ranking), strict=True))
                if result.ranking
                else None,
                "served": result.served is not None,
            }
            for result in results
        },
    )


def calibration_section(calibrations: Mapping[int, Calibration]) -> Section:
    """How well the probabilities of a ranking network separate, and whether they are right; by seed, at least
    one. The bins are those of the first."""
    figures: dict[str, Callable[[Calibration], float]] = {
        "AUC": lambda one: one.auc,
        "accuracy at 0.5": lambda one: one.accuracy,
        "log loss, nats": lambda one: one.log_loss,
        "expected calibration error": lambda one: one.expected_calibration_error,
    }
    seed, first = next(iter(calibrations.items()))
    lines = [
        "Predicted probabilities of the candidates of those test requests whose target is among them.",
        "",
        *heading(["seed", "examples", "positive", *figures]),
    ]
    for each, one in calibrations.items():
        counts = [f"{one.examples:,}", f"{one.positives:,}"]
        lines.append(row(str(each), [*counts, *(f"{figure(one):.4f}" for figure in figures.values())]))
    if len(calibrations) > 1:
        cells = [
            mean_and_deviation([figure(one) for one in calibrations.values()]) for figure in figures.values()
        ]
        lines.append(row("**mean ± sd**", ["", "", *cells]))
    lines += [
        "",
        f"Seed {seed}, in {len(first.bins)} bins of equal count:",
        "",
        "| predicted | observed | examples |",
        "|---:|---:|---:|",
        *(f"| {one.predicted:.4f} | {one.observed:.4f} | {one.count:,} |" for one in first.bins),
    ]
    return Section(
        key="calibration",
        title="Calibration",
        lines=lines,
        figures={str(each): asdict(one) for each, one in calibrations.items()},
        plots={"calibration.png": lambda path: plot_calibration(path, first.bins)},
    )


def diversity_section(seed: int, pool: int, points: Sequence[DiversityPoint]) -> Section:
    """What a page gains and loses by diversity."""
    return Section(
        key="diversity",
        title="Diversity",
        lines=[
            f"Seed {seed}, test: the first ten of {pool} candidates, re-ordered as the served graph does for "
            "a request that asks for diversity. Distance is that of categories; the re-ordering itself goes "
            "by the item vectors.",
            "",
            *heading(["diversity", "NDCG@10", "distance@10", "coverage@10"]),
            *(
                row(f"{point.diversity:g}", [_figure(value) for value in (point.ndcg, *_given(point))])
                for point in points
            ),
        ],
        figures={"seed": seed, "pool": pool, "points": [asdict(point) for point in points]},
        plots={"diversity.png": lambda path: plot_diversity(path, points)},
    )


def reasons_section(seed: int, trial: ReasonTrial) -> Section:
    """How often the reason that a recommendation names is one."""
    return Section(
        key="reasons",
        title="Reasons",
        lines=[
            "How often the score of a recommended item falls by more when its reason is taken out of the "
            "history than when another item is (the mean over all others; ties count half, so 50 % is a "
            f"reason drawn by lot), and how often no other item's removal costs more. Seed {seed}, test: the "
            f"best {trial.recommended} items of {trial.users:,} users with {trial.least_events} events or "
            "more; intervals by a bootstrap over the users.",
            "",
            *heading(["reason", "costs more than another", "95 % interval", "costs most"]),
            *(
                row(
                    f"{one.name}{' (served)' if one is trial.choices[0] else ''}",
                    [f"{one.share:.1%}", f"{one.low:.1%} to {one.high:.1%}", f"{one.exact:.1%}"],
                )
                for one in trial.choices
            ),
        ],
        figures={"seed": seed, **asdict(trial)},
    )


def _verdict(result: Result, ranking: Ranking, cutoff: int) -> str:
    name = f"ndcg@{cutoff}"
    gained = ranking.validation.metrics[name] - result.retrieval_validation.metrics[name]
    return f"{'yes' if ranking.served else 'no'}: validation NDCG@{cutoff} {gained:+.4f}"


def _given(point: DiversityPoint) -> tuple[float | None, float]:
    return point.intra_list_distance, point.coverage


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
