"""What operators may do, whether they call the service or use the command line."""

from __future__ import annotations

import time
from collections.abc import Callable

from features.settings import Settings
from features.traffic import Experiment
from rollout import state
from rollout.configuration import read_versions, set_versions
from rollout.errors import Crossed, NotPossible
from rollout.records import Records
from rollout.repository import find, newest
from rollout.state import Plan, Rollout


class Operator:
    """Changes the record of one model. Every method returns it as it is then.

    Raises, all of them:
        NotPossible: it does not fit where the rollout stands; nothing was changed.
        Crossed: the rollout is of another version than `of`; nothing was changed.
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
        if await self._records.control.exposures(name):
            raise NotPossible(f"name: users have met an experiment {name!r} already; choose another name")

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

    async def set_percent(self, percent: float, of: int | None = None) -> Rollout:
        """Gives the candidate a share of the users, and holds there; Crossed if it is not version `of`."""
        if not 0 <= percent <= 100:
            raise NotPossible(f"percent: must be from 0 to 100, not {percent:g}")
        return await self._change(lambda rollout, now: state.hold_at(_meant(rollout, of), percent, now))

    async def promote(self, of: int | None = None) -> Rollout:
        """Makes the candidate the stable version; Crossed if it is not version `of`."""
        return await self._change(lambda rollout, now: state.promote(_meant(rollout, of), now))

    async def roll_back(self, reason: str, of: int | None = None) -> Rollout:
        """Gives all traffic to the version that was stable before; Crossed if `of` is not on its way."""
        return await self._change(lambda rollout, now: state.roll_back(_meant(rollout, of), reason, now))

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


def _meant(rollout: Rollout, of: int | None) -> Rollout:
    """The record, if it is of the version that the operator means, or they have named none."""
    under_way = rollout.candidate if rollout.candidate is not None else rollout.stable
    if of is not None and of != under_way:
        raise Crossed(f"version: the rollout is of version {under_way} now, not of {of}; look again")
    return rollout
