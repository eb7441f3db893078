"""The service level of a run in which pages are to be degraded for a while: asked for, but for that while.

Locust judges a run as a whole, so it gets the level without the bound of degraded pages. That one is judged
here, by the pages before the first mark and after the last.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.capacity import ROOT
from benchmarks.errors import BenchmarkError

DEFAULT = ROOT / "loadtest" / "slo.toml"
_BOUND = "degraded_rate"


def set_apart(slo: Path, rest: Path) -> float | None:
    """The bound of degraded pages in `slo`, None if there is none; the other bounds are written to `rest`.

    Raises:
        BenchmarkError: it cannot be read, or the bound is none. Of the others the load test says that.
    """
    try:
        level = tomllib.loads(slo.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"--slo: {slo}: {error}") from error
    most = level.pop(_BOUND, None)
    if most is not None and not (isinstance(most, int | float) and 0 <= most <= 1):
        raise BenchmarkError(f"--slo: {slo}: {_BOUND}: {most!r} is no share from 0 to 1")
    lines = [
        f"# {slo} without {_BOUND}",
        *(f"{json.dumps(name)} = {json.dumps(level[name], default=str)}" for name in level),
    ]
    rest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return most


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
