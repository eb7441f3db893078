"""How Locust is started by what measures with it, and what of its command line is then nobody else's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.processes import TETHER

ROOT = Path(__file__).parents[1]
"""Where it is started."""
_USERS = 50
_OURS = ("--run-time", "--users", "--rate-per-user", "--report", "-t", "-u")
_NOT_HERE = ("--worker", "--master")


def locust_command(rate: float, report: Path, more: Sequence[str], *ours: str) -> list[str]:
    """`locust -f loadtest/` in an open loop of so many pages a second, which ends with this process.

    `more` are options of who asks for the test, `ours` those of who makes the command.
    """
    return [
        *(sys.executable, "-S", "-E", str(TETHER), str(os.getpid())),
        *(sys.executable, "-m", "locust", "-f", "loadtest/", "--headless", "--only-summary"),
        # Of an option that is given twice, the last counts.
        *(*more, "-u", str(_USERS), "--rate-per-user", repr(rate / _USERS), "--report", str(report), *ours),
    ]


def why_refused(more: Iterable[str], *ours: str) -> str:
    """Why options for Locust are not taken: a sentence on the first that is nobody else's; empty if none is.

    `ours` are those that are set beside the ones that `locust_command` sets.
    """
    for word in more:
        if (option := _meant(word, (*_OURS, *ours))) is not None:
            return f"{word}: {option} is set here, not by who calls this"
        if (option := _meant(word, _NOT_HERE)) is not None:
            return f"{word}: {option} cannot be used here; --processes can"
    return ""


def _meant(word: str, options: Sequence[str]) -> str | None:
    """The option that this word would set: Locust takes `-u10`, too, and the beginning of a name."""
    if word.startswith("--"):
        return next((option for option in options if option.startswith(word.split("=")[0])), None)
    return next((option for option in options if word[:2] == option), None)
