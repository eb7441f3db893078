"""A report as people and as programs read it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from loadtest._parts import Figures, Part, knee
from loadtest._report import FAIL, INVALID, PASS, Report

_COLUMNS = ("pages", "per s", "p50 ms", "p99 ms", "degraded", "failed", "others", "p99 ms", "failed")


def as_text(report: Report) -> str:
    """The summary that is printed."""
    loop = "in a closed loop"
    if report.offered is not None:
        loop = f"in an open loop, {report.users * report.rate_per_user:.0f} pages/s due"
    pages = report.pages
    lines = [
        "",
        f"Recommend, {report.users} users {loop}, {report.seconds:.0f} s:",
        f"  answered   {pages.count}: {pages.per_s:.1f} per s, "
        f"p50 {pages.p50_ms:.1f} ms, p99 {pages.p99_ms:.1f} ms",
        f"  degraded   {report.degraded} ({report.degraded_rate:.2%})",
        f"  failed     {report.failed} of {report.calls} calls of every kind ({report.error_rate:.2%})",
    ]
    if report.offered is not None:
        lines.append(f"  achieved   {report.achieved:.1%} of {report.offered} pages that were due")
    shares = ", ".join(f"{share:.0%}" for share in report.generator)
    lines += [
        f"  generator  {shares} of a core, at work for {report.busiest:.0%} of its busiest seconds; "
        f"pages asked for {report.late_p99_ms:.1f} ms late (p99)",
        "",
    ]
    lines += _table(
        ("call", "version", "cohort", "outcome", "calls", "per s", "p50 ms", "p99 ms"),
        [
            (row.method, row.version, row.cohort, row.outcome, each.count, *_numbers(each))
            for row, each in report.rows
        ],
    )
    if report.parts:
        lines += ["", "As time went by:"]
        lines += _table(("users", *_COLUMNS), [(part.users, *_cells(part)) for part in report.parts])
        lines += _up_to(report)
    if report.marks or report.marks_not_read:
        lines += ["", "Meanwhile:"]
        lines += [
            f"  {_clock(int(mark.at))}, {int(mark.at) - report.begun} s into the run: {mark.text}"
            for mark in report.marks
        ]
        lines += [f"  not read: {problem}" for problem in report.marks_not_read]
    if report.moments:
        lines += ["", "What went wrong, and when:"]
        lines += [
            f"  {moment.outcome}: from {_clock(moment.first)} to {_clock(moment.last)}, "
            f"{moment.first - report.begun} s to {moment.last - report.begun} s into the run, "
            f"{moment.count} of {moment.of} pages"
            for moment in report.moments
        ]
    if report.between:
        lines += ["", "Between the marks:"]
        lines += _table(
            ("from s", "to s", *_COLUMNS),
            [(part.first - report.begun, part.end - report.begun, *_cells(part)) for part in report.between],
        )
    lines.append("")
    lines += [f"FAIL: {breach}" for breach in report.breaches]
    lines += [f"INVALID: {flaw}" for flaw in report.flaws]
    if report.code == PASS:
        asked = ", ".join(
            f"{name} {bound:g}" for name, bound in report.level.model_dump(exclude_none=True).items()
        )
        lines.append(f"PASS: {asked or 'nothing was asked for'}")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """All of it, for programs."""
    verdict = {INVALID: "INVALID", FAIL: "FAIL", PASS: "PASS"}[report.code]
    return asdict(report) | {
        "level": report.level.model_dump(),
        "rows": [asdict(row) | asdict(each) for row, each in report.rows],
        "error_rate": report.error_rate,
        "degraded_rate": report.degraded_rate,
        "achieved": report.achieved,
        "verdict": verdict,
        "reasons": report.flaws + report.breaches,
    }


def _up_to(report: Report) -> list[str]:
    """Up to where a ramp keeps the level; nothing for other shapes."""
    there = [part.users or 0 for part in report.parts]
    if there != sorted(there) or there[0] == there[-1]:
        return []
    last = knee(report.parts, report.level)
    lines = (
        ["  The level breaks from the first step on."]
        if last is None
        else [f"  The level is kept up to {last.users} users, {last.pages.per_s:.1f} pages per s."]
    )
    if report.ended_at_knee:
        lines.append("  It ended there: two steps in a row broke the level.")
    return lines


def _cells(part: Part) -> tuple[object, ...]:
    """What stands under `_COLUMNS`."""
    others = part.others.count, f"{part.others.p99_ms:.1f}", part.others_failed
    return part.pages.count, *_numbers(part.pages), part.degraded, part.failed, *others


def _numbers(figures: Figures) -> tuple[str, str, str]:
    return f"{figures.per_s:.1f}", f"{figures.p50_ms:.1f}", f"{figures.p99_ms:.1f}"


def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns as wide as they have to be; numbers to the right."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    right = [all(cell[:1].isdigit() for cell in column) for column in zip(*cells, strict=True)] or [
        False
    ] * len(head)

    def line(row: Sequence[str]) -> str:
        return (
            "  "
            + "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, right, strict=True)
            ).rstrip()
        )

    return [line(head), *map(line, cells)]
