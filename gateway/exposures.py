"""Noting in the store which users have met which arm of an experiment, off the request path."""

from __future__ import annotations

import asyncio
import logging
import time

from features.control import ControlStore, Exposure
from features.store import StoreError, user_key

_INTERVAL_S = 0.25
_WRITE_TIMEOUT_S = 2.0
_MOST_KNOWN = 200_000
_MOST_WAITING = 10_000
"""While the store does not answer; one that finds no room is noted at the user's next call."""

log = logging.getLogger("riptide.gateway.exposures")


class Exposures:
    """The exposures of one worker. It writes each once: of several, the store keeps the first."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._known: dict[bytes, str] = {}  # `user_key` → the arm noted last
        self._waiting: list[Exposure] = []
        self._lost = 0

    def note(self, user_id: str, arm: str) -> None:
        """Notes that a user has met an arm."""
        user = user_key(user_id)
        if self._known.get(user) == arm:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[user] = arm
        self._waiting.append(Exposure(user_id, arm, int(time.time())))

    def forget(self, user_id: str) -> None:
        """Takes back what is not written yet of a user, before the store forgets them."""
        user = user_key(user_id)
        self._waiting = [exposure for exposure in self._waiting if user_key(exposure.user_id) != user]
        self._known.pop(user, None)

    async def write_for_good(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.write()

    async def write(self) -> None:
        """Writes what has gathered."""
        if self._lost:
            log.warning("exposures without room, to be noted at the users' next calls: %d", self._lost)
            self._lost = 0
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._control.log_exposures(waiting)
        except (StoreError, TimeoutError) as error:
            for exposure in waiting:
                self._known.pop(user_key(exposure.user_id), None)
            log.warning(
                "exposures not written, to be noted at the users' next calls: %d (%s)",
                len(waiting),
                str(error) or "no answer in time",
            )
