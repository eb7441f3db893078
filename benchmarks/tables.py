"""A section as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.section import Grid, Measured, Section

_NONE = "–"


def markdown(section: Section) -> str:
    """The section's tables and ratios; every figure is median (lowest–highest) of the rounds."""
    lines = [f"## {section.title}", ""]
    if section.measured:
        lines += [*_grid(_measured(section)), ""]
    for grid in section.grids:
        lines += [*([f"**{grid.title}**", ""] if grid.title else []), *_grid(grid), ""]
    if section.ratios:
        lines += [*_grid(_ratios(section)), ""]
    notes = [*section.notes, *(f"Not all was measured: {failure}" for failure in section.failures)]
    lines += [f"- {' '.join(note.split())}" for note in notes] + ([""] if notes else [])
    return "\n".join(lines)


def as_json(section: Section) -> dict[str, Any]:
    """All that was measured, and the ratios."""
    return {
        "title": section.title,
        "measured": [asdict(m) | {"per_s": m.observed.per_s} for m in section.measured],
        "ratios": [
            asdict(ratio)
            | {"spread": asdict(found) if (found := ratio.spread(section.measured)) else None}
            | {"met": ratio.verdict(section.measured)}
            for ratio in section.ratios
        ],
        "grids": [asdict(grid) for grid in section.grids],
        "notes": section.notes,
        "failures": section.failures,
    }


def _measured(section: Section) -> Grid:
    with_offer = any(m.observed.offered_per_s is not None for m in section.measured)
    head = [
        *("server", "load", "generator, bodies", "calls/s"),
        *(["offered/s"] if with_offer else []),
        *("p50 ms", "p99 ms", "CPU µs/call", "generator cores", "failed", "degraded", *section.more),
    ]
    rows = []
    for server, load in section.rows():
        own = section.of(server, load)

        def cell(figure: str, server: str = server, load: str = load) -> str:
            return str(section.spread(server, load, figure) or _NONE)

        processes = list(dict.fromkeys(name for m in own for name in m.cpu_us))
        cpu = ", ".join(f"{name} {cell(name)}" for name in processes) or _NONE
        rows.append(
            [
                *(server, load, own[0].observed.generator, cell("per_s")),
                *([cell("offered_per_s")] if with_offer else []),
                *(cell("p50_ms"), cell("p99_ms"), cpu, cell("cores"), _failed(own), _degraded(own)),
                *(cell(name) for name in section.more),
            ]
        )
    return Grid("", head, rows)


def _failed(own: Sequence[Measured]) -> str:
    return str(sum(m.failed_calls for m in own))


def _degraded(own: Sequence[Measured]) -> str:
    if all(m.degraded is not None for m in own):
        return str(sum(m.degraded or 0 for m in own))
    looked_at = sum(m.observed.looked_at for m in own)
    return f"{sum(m.observed.degraded for m in own)} of {looked_at}" if looked_at else _NONE


def _ratios(section: Section) -> Grid:
    rows = []
    for ratio in section.ratios:
        found = ratio.spread(section.measured)
        met = ratio.verdict(section.measured)
        rows.append(
            [ratio.label, str(found or _NONE), ratio.wanted, {None: "", True: "yes", False: "no"}[met]]
        )
    return Grid("", ["ratio", "median (lowest–highest)", "wanted", "met"], rows)


def _grid(grid: Grid) -> list[str]:
    return [
        f"| {' | '.join(grid.head)} |",
        f"|{'---|' * len(grid.head)}",
        *(f"| {' | '.join(row)} |" for row in grid.rows),
    ]
