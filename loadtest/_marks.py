"""Marks: what somebody else says happened during a run, and when.

A line of their file is the time in Unix seconds, a blank, and a sentence: `1700000000.2 Triton is killed`.
Whoever wants to appends to it: `echo "$(date +%s) the cable is out" >> marks`. The load test makes it, if it
is not there, when the figures begin: who waits for that knows that all users call.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

_SLACK_S = 1.0
"""By which a mark may be ahead: clocks of two processes are read one after the other."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Something that happened."""

    at: float
    """Unix seconds."""
    text: str


def check(path: Path) -> None:
    """Makes sure that the file can be made and read. It does not make it, not even for a moment: who waits
    for it would take that for the beginning of the figures.

    Raises:
        ValueError: it cannot; the sentence says why.
    """
    try:
        try:
            path.open("r+").close()
        except FileNotFoundError:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"--marks: {path} cannot be used: {error.strerror}") from error


def read_marks(path: Path, now: float) -> tuple[list[Mark], list[str]]:
    """The marks in order of time; and a sentence for each line that is none, by its number.

    A time after `now` is none: whoever writes it has another unit, or another clock.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return [], [f"{path} cannot be read: {error.strerror}"]
    marks, problems = [], []
    for number, line in enumerate(lines, 1):
        when, _, text = line.strip().partition(" ")
        if not when:
            continue
        try:
            mark = Mark(float(when), text.strip())
        except ValueError:
            mark = Mark(-1.0, "")
        if 0 <= mark.at <= now + _SLACK_S and mark.text:
            marks.append(mark)
        else:
            problems.append(
                f"{path}, line {number}: is no Unix time until now, a blank and a sentence: {line.strip()!r}"
            )
    return sorted(marks), problems
