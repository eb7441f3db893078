"""Making Triton have the versions that the record asks for, and noticing when it does not.

`config.pbtxt` first, since that is what Triton has after a restart, then Triton itself.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from features.settings import Settings
from inference.control import READY, ModelControl
from inference.errors import LoadFailed, NoAnswer, TritonError
from rollout.configuration import read_versions, set_versions
from rollout.state import LIVE, Phase, Rollout

_LOAD_TIMEOUT_S = 300.0
_AGAIN_S = 5.0
"""Pause after a load that changed nothing for the better."""
_LAUNCHER_S = 60.0
"""So long the launcher of a Triton on this machine is left to load the stable version by itself."""
_SETTLE_S = 2.0
"""After Triton, or the stable version in it, was away: what failed meanwhile is no version's fault."""
_OUTAGES_S = 600.0
_MOST_OUTAGES = 3
"""So often in `_OUTAGES_S` may Triton go while a version is on trial, before that is taken for the reason."""

log = logging.getLogger("riptide.rollout")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether Triton has what the record asks for."""

    done: bool = False
    """It has, or only a candidate is missing that is being judged by its failed calls."""
    note: str = ""
    """What is waited for."""
    failed: str = ""
    """Why the candidate cannot be loaded."""
    gone: bool = False
    """A candidate that was kept to be looked at is not there any more."""


class Loader:
    """The driver's hand on Triton."""

    def __init__(self, settings: Settings, triton: ModelControl) -> None:
        self._model_folder = settings.model_repository / settings.model_name
        self._launched = settings.triton_address is None
        self._triton = triton
        self._tried: list[int] = []  # what Triton was last told to load
        self._not_before = 0.0
        self._away_since: float | None = None
        self._back_at = 0.0
        self._outages: deque[float] = deque()

    @property
    def settled(self) -> bool:
        """Whether Triton and the stable version are there, and have been for a moment."""
        return self._away_since is None and time.monotonic() - self._back_at >= _SETTLE_S

    @property
    def unsteady(self) -> int:
        """How often Triton has gone lately, if that is more often than chance explains; else 0."""
        while self._outages and time.monotonic() - self._outages[0] > _OUTAGES_S:
            self._outages.popleft()
        return len(self._outages) if len(self._outages) > _MOST_OUTAGES else 0

    def forget_outages(self) -> None:
        """Begins to count anew: the rollout has come on, so what came before did not keep it."""
        self._outages.clear()

    async def agree(self, rollout: Rollout, *, obeyed: bool) -> Agreement:
        """Brings `config.pbtxt` and Triton to what the record asks for.

        Args:
            rollout: the record.
            obeyed: every gateway follows it. Until then one may send calls to a version that is to go.

        Raises:
            TritonError, RolloutError, OSError: it could not be done now.
        """
        wanted = list(rollout.loaded)
        configured = read_versions(self._model_folder)
        if (going := set(configured) - set(wanted)) and not obeyed:
            return Agreement(note=f"waits for the gateways before unloading {listed(going)}")
        if configured != wanted:
            set_versions(self._model_folder, wanted)
        ready = await self.look(rollout.stable)
        if ready is None:
            return Agreement(note="waits for Triton")
        if ready == set(wanted):
            self._tried = []
            return Agreement(done=True)
        missing = [version for version in wanted if version not in ready]
        if rollout.stable in missing:
            return await self._bring_back(rollout.stable)
        kept = missing == [rollout.candidate] and rollout.phase is Phase.ROLLED_BACK
        if self._tried == wanted:
            if kept:
                return Agreement(gone=True)
            if time.monotonic() < self._not_before:
                return Agreement(
                    done=missing == [rollout.candidate] and rollout.phase in LIVE,
                    note=f"Triton does not have version {listed(missing)}",
                )
        self._tried = wanted
        try:
            await self._load(None)
        except LoadFailed as error:
            if rollout.candidate in missing:
                return Agreement(failed=str(error))
            raise
        return Agreement(done=True)

    async def look(self, stable: int) -> set[int] | None:
        """The versions that are ready, None if Triton does not answer; notes whether the stable one is."""
        try:
            states = await self._triton.states()
        except TritonError as error:
            if not isinstance(error, NoAnswer):
                raise
            self._away()
            return None
        ready = {version for version, (status, _) in states.items() if status == READY}
        if stable not in ready:
            self._away()
        elif self._away_since is not None:
            self._away_since, self._back_at = None, time.monotonic()
        return ready

    async def _bring_back(self, stable: int) -> Agreement:
        """Loads the stable version, alone: a load is all or nothing, and another one may be broken."""
        waited_s = time.monotonic() - (self._away_since or 0.0)
        note = f"waits for Triton to have the stable version {stable}"
        if (self._launched and waited_s < _LAUNCHER_S) or time.monotonic() < self._not_before:
            return Agreement(note=note)
        self._tried = [stable]
        await self._load([stable])
        return Agreement(note=note)

    async def _load(self, versions: list[int] | None) -> None:
        try:
            await self._triton.load(versions, timeout_s=_LOAD_TIMEOUT_S)
        except NoAnswer:
            self._away()  # perhaps because of what it was to load
            raise
        finally:
            self._not_before = time.monotonic() + _AGAIN_S

    def _away(self) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._outages.append(self._away_since)


def listed(versions: Iterable[int]) -> str:
    """`1, 2`."""
    return ", ".join(map(str, sorted(versions)))
