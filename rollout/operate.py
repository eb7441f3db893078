"""What operators may do, whether they call the service or use the command line."""

from __future__ import annotations

import time
from collections.abc import Callable

from features.settings import Settings
from features.traffic import Experiment
from rollout import state
from rollout.configuration import read_versions, set_versions
from rollout.errors import NotPossible
from rollout.repository import find, newest
from rollout.state import Plan, Records, Rollout


class Operator:
    """Changes the record of one model. Every method returns it as it is then.

    Raises, all of them:
        NotPossible: it does not fit where the rollout stands; nothing was changed.
        NoSuchVersion, BadRecord, StoreError: see there.
    """

    def __init__(self, settings: Settings, records: Records) -> None:
        self._model_folder = settings.model_repository / settings.model_name
        self._records = records

    async def get(self) -> Rollout:
        """The record; made if there is none."""
        rollout, _ = await self._records.read()
        return rollout if rollout is not None else await self._records.change(self._or_new)

    async def start(self, version: int | None, plan: Plan) -> Rollout:
        """Begins a rollout of `version`, by default the newest one."""
        chosen = version if version is not None else newest(self._model_folder)
        find(self._model_folder, chosen)
        return await self._change(lambda rollout, now: state.start(rollout, chosen, plan, now))

    async def start_experiment(self, name: str, version: int | None, percent: float, plan: Plan) -> Rollout:
        """Begins an experiment between the stable version and `version`, by default the newest one."""
        chosen = version if version is not None else newest(self._model_folder)
        find(self._model_folder, chosen)

        def begin(rollout: Rollout, now: float) -> Rollout:
            experiment = Experiment(name=name, control=rollout.stable, treatment=chosen, percent=percent)
            return state.start(rollout, chosen, plan.model_copy(update={"experiment": experiment}), now)

        return await self._change(begin)

    async def end_experiment(self) -> Rollout:
        """Ends the experiment that runs."""
        return await self._change(state.end_experiment)

    async def serve(self, version: int) -> Rollout:
        """Makes `version` the stable one at once, without a rollout; for when nothing serves yet."""
        find(self._model_folder, version)

        def serve(rollout: Rollout, now: float) -> Rollout:
            return state.serve(rollout, version, now)

        rollout = await self._change(serve)
        set_versions(self._model_folder, rollout.loaded)
        return rollout

    async def set_percent(self, percent: float) -> Rollout:
        """Gives the candidate a share of the users, and holds there."""
        if not 0 <= percent <= 100:
            raise NotPossible(f"percent: must be from 0 to 100, not {percent:g}")
        return await self._change(lambda rollout, now: state.hold_at(rollout, percent, now))

    async def promote(self) -> Rollout:
        """Makes the candidate the stable version."""
        return await self._change(state.promote)

    async def roll_back(self, reason: str) -> Rollout:
        """Gives all traffic to the version that was stable before."""
        return await self._change(lambda rollout, now: state.roll_back(rollout, reason, now))

    async def discard(self) -> Rollout:
        """Unloads a candidate that was rolled back."""
        return await self._change(state.discard)

    async def _change(self, make: Callable[[Rollout, float], Rollout]) -> Rollout:
        return await self._records.change(lambda rollout: make(self._or_new(rollout), time.time()))

    def _or_new(self, rollout: Rollout | None) -> Rollout:
        if rollout is not None:
            return rollout
        configured = read_versions(self._model_folder)
        stable = configured[0] if configured else newest(self._model_folder)
        return state.idle(stable, time.time(), f"version {stable} is the stable version")
