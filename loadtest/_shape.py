"""A shape as Locust wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from locust import LoadTestShape


class Shape(LoadTestShape):
    """One of `shapes.SHAPES`. Abstract for Locust, which would take one that it finds for every run."""

    abstract = True
    use_common_options = True

    def __init__(self, share: Callable[[float], float], options: Any, has_ended: Callable[[], bool]) -> None:
        """`has_ended`: whether the run is over before its time is."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._share, self._options, self._has_ended = share, options, has_ended

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now, and how many come or go a second; None when the run is over."""
        part = self.get_run_time() / self._options.run_time  # type: ignore[no-untyped-call]
        if part >= 1 or self._has_ended():
            return None
        users = max(1, round(self._options.num_users * self._share(part)))
        return users, float(self._options.spawn_rate)
