"""growth.png: how latency grows with the catalogue, the history and the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.section import Section


def plot(path: Path, sections: Sequence[Section]) -> bool:
    """Draws the curves of all sections, one panel per quantity; whether there was one to draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: dict[str, list[tuple[Section, int]]] = {}
    for section in sections:
        for i, curve in enumerate(section.curves):
            panels.setdefault(curve.x_label, []).append((section, i))
    if not panels:
        return False
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.0 * len(panels), 4.0), squeeze=False)
    for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
        for section, i in curves:
            curve = section.curves[i]
            found = [(x, section.spread(server, load, curve.figure)) for x, server, load in curve.points]
            points = [(x, y) for x, y in found if y is not None]
            if not points:
                continue
            x = [at for at, _ in points]
            y = [spread.median for _, spread in points]
            down = [spread.median - spread.lowest for _, spread in points]
            up = [spread.highest - spread.median for _, spread in points]
            axis.errorbar(x, y, yerr=[down, up], marker="o", capsize=3, label=curve.name)
        axis.set(xlabel=label, ylabel="p50, ms", xscale="log")
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True
