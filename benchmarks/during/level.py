"""The service level of a run in which pages are to be degraded for a while: asked for, but for that while.

Locust judges a run as a whole, so it gets the level without the bound of degraded pages. That one is judged
here, by the pages before the first mark and after the last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from loadtest.slo import read_service_level

_BOUND = "degraded_rate"


def set_apart(slo: Path, rest: Path) -> float | None:
    """The bound of degraded pages in `slo`, None if there is none; the other bounds are written to `rest`.

    Raises:
        BenchmarkError: it cannot be read, or is no service level.
    """
    try:
        level = read_service_level(slo)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    others = level.model_dump(exclude={_BOUND}, exclude_none=True)
    rest.write_text("".join(f"{name} = {bound!r}\n" for name, bound in others.items()), encoding="utf-8")
    return level.degraded_rate


def judged_outside(report: dict[str, Any], most: float) -> tuple[str, bool]:
    """What the load test's report says of the pages outside the marks; and whether no more of them were
    degraded than the share `most`.
    """
    # The second of a mark belongs to what comes after it.
    marked = [int(mark["at"]) for mark in report["marks"]]
    outside = [part for part in report["between"] if part["end"] <= marked[0] or part["first"] >= marked[-1]]
    degraded = sum(part["degraded"] for part in outside)
    pages = sum(part["pages"]["count"] for part in outside)
    said = f"{_BOUND}: of {pages} pages before and after it {degraded}, at most {most:.3%} wanted"
    return said, degraded <= most * pages
