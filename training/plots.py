"""The plots of a report, as PNG files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.calibration import CalibrationBin

if TYPE_CHECKING:  # a run that reuses everything must not wait for the import
    from matplotlib.axes import Axes

    from training.results import Result


@dataclass(frozen=True, slots=True)
class DiversityPoint:
    """What one setting of the diversity of a page gives."""

    diversity: float
    """The setting: 0 is relevance alone."""
    ndcg: float
    intra_list_distance: float | None
    """None if no list has two items of known categories."""
    coverage: float


def plot_curves(folder: Path, results: Sequence[Result]) -> None:
    """loss.png and validation_ndcg.png: a line per run, its best epoch dotted."""
    for name, label in (("loss", "training loss, nats"), ("validation_ndcg", "validation NDCG@10")):
        with _axes(folder / f"{name}.png") as (axes,):
            for result in results:
                axes.plot(
                    [epoch.epoch for epoch in result.curve],
                    [getattr(epoch, name) for epoch in result.curve],
                    label=f"{result.split}, seed {result.seed}",
                )
                axes.axvline(result.best_epoch, color=axes.lines[-1].get_color(), linestyle=":", linewidth=1)
            axes.set(xlabel="epoch", ylabel=label)
            axes.legend()


def plot_calibration(path: Path, bins: Sequence[CalibrationBin]) -> None:
    """The share observed over the probability predicted; a calibrated ranker is on the diagonal."""
    with _axes(path) as (axes,):
        largest = max(1e-6, *(value for one in bins for value in (one.predicted, one.observed))) * 1.05
        axes.plot([0, largest], [0, largest], color="grey", linestyle=":", label="calibrated")
        axes.plot(
            [one.predicted for one in bins], [one.observed for one in bins], marker="o", label="observed"
        )
        axes.set(
            xlabel="mean predicted probability",
            ylabel="share observed",
            xlim=(0, largest),
            ylim=(0, largest),
        )
        axes.legend()


def plot_diversity(path: Path, points: Sequence[DiversityPoint]) -> None:
    """NDCG@10 over the distance within lists, if there is one, and over the coverage; each point bears its
    setting."""
    over = {"intra_list_distance": "intra-list distance of categories @10", "coverage": "coverage@10"}
    if any(point.intra_list_distance is None for point in points):
        del over["intra_list_distance"]
    with _axes(path, panels=len(over)) as panels:
        for axes, (name, label) in zip(panels, over.items(), strict=True):
            xs = [getattr(point, name) for point in points]
            axes.plot(xs, [point.ndcg for point in points], marker="o")
            for x, point in zip(xs, points, strict=True):
                axes.annotate(
                    f"{point.diversity:g}", (x, point.ndcg), xytext=(4, 4), textcoords="offset points"
                )
            axes.margins(0.12)  # room for the settings
            axes.set(xlabel=label, ylabel="NDCG@10")


@contextmanager
def _axes(path: Path, panels: int = 1) -> Iterator[Sequence[Axes]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(6 if panels == 1 else 5 * panels, 4), squeeze=False)
    try:
        yield list(axes[0])
        figure.tight_layout()
        draft = path.with_name(f"{path.stem}.draft.png")
        figure.savefig(draft, dpi=120)
        draft.replace(path)
    finally:
        pyplot.close(figure)
