"""A load test that is none, for scenarios to happen to."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 30.0


class WatchedLoad:
    """Keeps the marks. `ends_with` is raised where a scenario waits."""

    def __init__(self, ends_with: BaseException | None = None) -> None:
        self.marks: list[str] = []
        self._ends_with = ends_with

    def mark(self, text: str, at: float | None = None) -> None:
        self.marks.append(text)

    def wait(self, seconds: float) -> None:
        if self._ends_with is not None:
            raise self._ends_with
        time.sleep(min(seconds, 0.01))

    def until(self, is_so: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + min(limit_s, LIMIT_S)
        while not is_so():
            if time.monotonic() > deadline:
                return False
            self.wait(0.01)
        return True
