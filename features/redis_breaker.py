"""A circuit breaker: while a server does not answer, calls fail at once instead of waiting for it in turn.

After the pattern of M. Nygard, "Release It!" (2007).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from features.store import StoreUnavailable

FAILURES = 5
"""Failures in a row after which it opens."""
OPEN_S = 1.0
"""How long calls fail at once; then one is let through to try."""

log = logging.getLogger("riptide.features.redis_breaker")


class Unreachable(StoreUnavailable):
    """The server did not answer, or not in time: what a breaker counts."""


class Breaker:
    """Lets calls through while they succeed. For one event loop."""

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        """A closed breaker.

        Args:
            server: what it guards, for people.
            clock: seconds that never go back.
        """
        self._server, self._clock = server, clock
        self._failures = 0
        self._open_until = 0.0
        self._trying = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call; `Unreachable` counts against the server, any other end but cancellation for it.

        Raises:
            StoreUnavailable: the breaker is open.
        """
        opened = self._failures >= FAILURES
        if opened:
            if self._trying or self._clock() < self._open_until:
                raise StoreUnavailable(f"{self._server} does not answer; it is tried again in a moment")
            self._trying = True
        try:
            yield
        except Unreachable as error:
            self._failed(error)
            raise
        except Exception:
            self._succeeded()  # it answered, if only with an error
            raise
        else:
            self._succeeded()
        finally:
            if opened:  # had it been cancelled, it would have proved nothing: the next one tries
                self._trying = False

    def _failed(self, error: Unreachable) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._open_until = self._clock() + OPEN_S
        if self._failures == FAILURES:
            log.warning("%s; calls to it fail at once until it answers", error)

    def _succeeded(self) -> None:
        if self._failures >= FAILURES:
            log.info("%s answers again", self._server)
        self._failures = 0
