"""The load test in the background, and the file in which it is told what happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from benchmarks.errors import BenchmarkError
from benchmarks.locust_command import ROOT, locust_command

_BEGINS_S = 90.0
_ENDS_S = 90.0
"""It waits for the last figures of its processes."""
_POLL_S = 0.1
JUDGED = (0, 1, 3)
"""Its exit codes PASS, FAIL and INVALID; others say that it did not run."""


class Load(Protocol):
    """What a scenario happens to."""

    def mark(self, text: str, at: float | None = None) -> None:
        """Says what has happened, now or at that time, Unix seconds."""

    def wait(self, seconds: float) -> None:
        """Lets it go on for so long.

        Raises:
            BenchmarkError: it has ended.
        """

    def until(self, is_so: Callable[[], bool], limit_s: float) -> bool:
        """Lets it go on until something is so; whether it is, within `limit_s`.

        Raises:
            BenchmarkError: it has ended.
        """


class RunningLoad:
    """Locust, at work. Marks are printed, too."""

    def __init__(self, process: subprocess.Popen[bytes], marks: Path) -> None:
        self._process, self._marks = process, marks
        self._status: int | None = None

    def mark(self, text: str, at: float | None = None) -> None:
        when = time.time() if at is None else at
        with self._marks.open("a", encoding="utf-8") as file:
            file.write(f"{when:.3f} {' '.join(text.split())}\n")
        print(f"{time.strftime('%H:%M:%S', time.localtime(when))} {text}", file=sys.stderr, flush=True)

    def wait(self, seconds: float) -> None:
        self.until(lambda: False, seconds)

    def until(self, is_so: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not is_so():
            if self._process.poll() is not None:
                raise BenchmarkError("the load test has ended by itself; what it said stands above")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(_POLL_S, left_s))
        return True

    def end(self) -> int:
        """Ends it, in order; its exit status, once it has printed its report."""
        if self._status is None:
            if self._process.poll() is None:
                self._process.terminate()
            try:
                self._process.wait(_ENDS_S)
            finally:
                # With --processes it has children, in a session with it.
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._status = self._process.wait()
        return self._status


@contextmanager
def running_load(rate: float, marks: Path, report: Path, more: Sequence[str]) -> Iterator[RunningLoad]:
    """`locust -f loadtest/` in an open loop of so many pages a second, from when all its users call until the
    block ends; `more`: options for it. What it says goes where this process writes.

    Raises:
        BenchmarkError: it does not begin.
    """
    marks.unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    command = locust_command(rate, report, more, "--marks", str(marks))
    # A session of its own: Ctrl-C reaches it by this process alone, which has something to put right first.
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
    load = RunningLoad(process, marks)
    try:
        # It makes the file when its figures begin.
        if not load.until(marks.exists, _BEGINS_S):
            raise BenchmarkError(f"the load test has not begun after {_BEGINS_S:.0f} s")
        yield load
    finally:
        load.end()
