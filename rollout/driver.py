"""Moves a rollout on: looks at the record a few times a second and does what its phase asks for.

Everything it needs to know is in the record, on disk and in Triton, and every action may be repeated. So the
driver can die at any moment and be started again: it goes on with the phase that the record names. What is
loaded is reconciled in one place (`_reconcile`): config.pbtxt first, since that is what Triton loads when it
is started again, then Triton itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.control import ControlStore
from features.figures import VersionFigures
from features.settings import Settings
from features.store import StoreError
from inference.control import READY, ModelControl
from inference.errors import LoadFailed, TritonError
from rollout import state
from rollout.check import check_files, check_memory
from rollout.configuration import read_versions, set_versions
from rollout.errors import Busy, NotPossible, PreflightFailed, RolloutError
from rollout.heartbeat import Heartbeat, write_heartbeat
from rollout.judge import judge
from rollout.repository import find, newest, prune
from rollout.state import LIVE, Phase, Records, Rollout
from rollout.trial import try_out
from rollout.window import Look, drop_old_reports, look
from rollout.workbench import workbench

TICK_S = 0.25
_LOAD_TIMEOUT_S = 300.0
_LOAD_AGAIN_S = 5.0
"""Pause after a load that changed nothing for the better."""
_SETTLE_S = 2.0
"""After Triton, or the stable version in it, was away: what failed meanwhile is no version's fault."""
_MOST_OUTAGES = 3
"""So often may Triton go while a rollout is under way, before the candidate is taken for the reason."""
_OBEY_S = 2.0
"""Gateways that have not confirmed a change after this long are not waited for."""
_CLEAN_EVERY_S = 60.0

log = logging.getLogger("riptide.rollout")


@contextmanager
def only_driver(model_folder: Path) -> Iterator[None]:
    """Inside, no other driver is at work on this model.

    Raises:
        Busy: one is.
    """
    with (workbench(model_folder) / "driver.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"{model_folder}: another driver is at work on this model") from error
        yield


class Driver:
    """The driver of one model. `run` it beside the operator's service."""

    def __init__(self, settings: Settings, control: ControlStore, triton: ModelControl) -> None:
        self._settings = settings
        self._control = control
        self._records = Records(control, settings.model_name)
        self._triton = triton
        self._model_folder = settings.model_repository / settings.model_name
        self._window: tuple[object, Look] | None = None  # what it is of, and the look at its beginning
        self._reference = VersionFigures()
        self._is_away = False
        self._away_until = 0.0
        self._outages = 0
        self._tried: list[int] = []  # what Triton was last told to load
        self._load_not_before = 0.0
        self._cleaned = 0.0
        self._note = ""

    async def run(self) -> None:
        """Ticks until cancelled. What fails is told, and tried again with the next tick."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tick_for_good())
            # Beside it: a load takes seconds, in which the driver is alive.
            both.create_task(self._beat_for_good())

    async def _tick_for_good(self) -> None:
        while True:
            try:
                await self.tick()
            except (StoreError, TritonError, RolloutError, OSError) as error:
                self._say(str(error))
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Looks once, and does what there is to do.

        Raises:
            StoreError, TritonError, RolloutError, OSError: it could not; nothing is half done.
        """
        rollout, revision = await self._records.read()
        if rollout is None or not self._is_published(rollout.stable):
            await self._begin_record(rollout, revision)
            return
        if not await self._reconcile(rollout, revision):
            return
        match rollout.phase:
            case Phase.CHECK:
                await self._check(rollout, revision)
            case Phase.LOAD:
                await self._move(rollout, revision, state.loaded)
            case Phase.PROVE:
                await self._prove(rollout, revision)
            case Phase.SHADOW | Phase.CANARY | Phase.EXPERIMENT:
                await self._watch(rollout, revision)
            case Phase.RETIRE:
                await self._retire(rollout, revision)
            case Phase.IDLE | Phase.ROLLED_BACK:
                self._say("")
                await self._clean(rollout)

    # What is loaded

    async def _reconcile(self, rollout: Rollout, revision: int) -> bool:
        """Makes config.pbtxt and Triton agree with the record; whether they do."""
        wanted = list(rollout.loaded)
        configured = read_versions(self._model_folder)
        going = set(configured) - set(wanted)
        if going and not await self._obeyed(rollout, revision):
            # A gateway may still send calls there.
            self._say(f"waits for the gateways before unloading {_listed(going)}")
            return False
        if configured != wanted:
            set_versions(self._model_folder, wanted)
        states = await self._states()
        if states is None:
            return False
        ready = {version for version, (status, _) in states.items() if status == READY}
        if rollout.stable in ready:
            self._is_away = False
        elif rollout.phase in LIVE:
            self._away()
        if ready == set(wanted):
            return True
        missing = [version for version in wanted if version not in ready]
        if missing == [rollout.candidate] and rollout.phase is Phase.ROLLED_BACK:
            # It was kept to be looked at, and is of no use to anybody.
            await self._move(rollout, revision, state.not_kept)
            return False
        if self._tried == wanted and time.time() < self._load_not_before:
            # A candidate that answers requests is judged meanwhile, by its failed calls.
            return missing == [rollout.candidate] and rollout.phase in LIVE
        return await self._load(rollout, revision, missing)

    async def _load(self, rollout: Rollout, revision: int, missing: list[int]) -> bool:
        """Has Triton load and unload what config.pbtxt says; whether it did."""
        if missing:
            self._say(f"Triton loads version {_listed(missing)}")
        try:
            await self._triton.load(timeout_s=_LOAD_TIMEOUT_S)
        except LoadFailed as error:
            states = await self._states() or {}
            stable, _ = states.get(rollout.stable, ("", ""))
            if rollout.candidate in missing and stable == READY:
                reason = str(error)
                await self._move(rollout, revision, lambda now_, at: state.failed_to_load(now_, reason, at))
            else:
                log.error("%s", error)
            return False
        finally:
            self._tried, self._load_not_before = list(rollout.loaded), time.time() + _LOAD_AGAIN_S
        return True

    async def _states(self) -> dict[int, tuple[str, str]] | None:
        """Version → state and reason, as Triton says; None while it does not answer."""
        try:
            return await self._triton.states()
        except TritonError as error:
            self._away()
            self._say(f"waits for Triton: {error}")
            return None

    def _away(self) -> None:
        """Notes that Triton, or the stable version in it, is not there."""
        if not self._is_away:
            self._is_away = True
            self._outages += 1
        self._away_until = time.time() + _SETTLE_S
        self._window = None

    async def _obeyed(self, rollout: Rollout, revision: int) -> bool:
        now = time.time()
        return now - rollout.since > _OBEY_S or (await look(self._control, now)).obeyed(revision)

    # The phases

    async def _check(self, rollout: Rollout, revision: int) -> None:
        assert rollout.candidate is not None
        self._outages, self._reference = 0, VersionFigures()
        self._say(f"checks the files of version {rollout.candidate}")
        try:
            candidate = find(self._model_folder, rollout.candidate)
            # Hashing is work for a core: not on the loop that the operators' calls wait for.
            await asyncio.to_thread(check_files, candidate)
            check_memory(candidate, self._settings)
        except (PreflightFailed, OSError, RolloutError) as error:
            await self._fail(rollout, revision, str(error))
            return
        await self._move(rollout, revision, state.checked)

    async def _prove(self, rollout: Rollout, revision: int) -> None:
        assert rollout.candidate is not None
        self._say(f"tries out version {rollout.candidate}")
        try:
            trial = await try_out(
                self._triton.stub,
                self._settings.model_name,
                self._model_folder,
                stable=rollout.stable,
                candidate=rollout.candidate,
                bounds=rollout.plan.bounds,
            )
        except PreflightFailed as error:
            if await self._states() is not None:  # else Triton went away in the middle of it
                await self._fail(rollout, revision, str(error))
            return
        await self._move(rollout, revision, lambda now_, at: state.proven(now_, at, str(trial)))

    async def _watch(self, rollout: Rollout, revision: int) -> None:
        """Judges the candidate over the time since this step began."""
        assert rollout.candidate is not None
        now = time.time()
        seen = await look(self._control, now)
        if self._outages > _MOST_OUTAGES:
            reason = f"Triton went away {self._outages} times since this began"
            await self._fail(rollout, revision, reason)
            return
        # After the look: what was counted by then and failed may be an outage that is seen only now.
        if await self._states() is None or now < self._away_until:
            return
        of = (rollout.since, rollout.candidate)
        if self._window is None or self._window[0] != of:
            self._window = of, seen
            return
        began = self._window[1]
        if refusal := seen.refusal(rollout.candidate):
            await self._fail(
                rollout, revision, f"a gateway cannot serve version {rollout.candidate}: {refusal}"
            )
            return
        counted = seen.since(began)
        stable = counted.get(rollout.stable, VersionFigures())
        if stable.calls >= rollout.plan.bounds.min_calls:
            self._reference = stable
        candidate = counted.get(rollout.candidate, VersionFigures())
        shadow = rollout.phase is Phase.SHADOW
        verdict = judge(self._reference, candidate, rollout.plan.bounds, shadow=shadow)
        if verdict.breach:
            await self._fail(rollout, revision, f"version {rollout.candidate}: {verdict.breach}")
            return
        left_s = rollout.plan.step_s - (now - began.at)
        if rollout.held or rollout.phase is Phase.EXPERIMENT:
            self._say(verdict.summary)
        elif not seen.fresh:
            self._say("waits: no gateway reports")
        elif verdict.wanting:
            self._say(f"waits for calls: {verdict.wanting}")
        elif left_s > 0:
            self._say(f"{verdict.summary}; {left_s:.0f} s to go")
        else:
            how = "shadow calls passed" if shadow else f"{rollout.percent:g} % passed"
            text = f"{how} ({verdict.summary})"
            await self._move(rollout, revision, lambda now_, at: state.passed(now_, at, text))

    async def _retire(self, rollout: Rollout, revision: int) -> None:
        left_s = rollout.plan.grace_s - (time.time() - rollout.since)
        if left_s > 0 or not await self._obeyed(rollout, revision):
            self._say(f"version {rollout.previous} stays loaded for another {max(0.0, left_s):.0f} s")
            return
        await self._move(rollout, revision, state.retired)

    async def _clean(self, rollout: Rollout) -> None:
        now = time.time()
        if now - self._cleaned < _CLEAN_EVERY_S:
            return
        self._cleaned = now
        await drop_old_reports(self._control, await look(self._control, now))
        in_use = {*rollout.loaded, *((rollout.candidate,) if rollout.candidate else ())}
        for version in prune(self._model_folder, self._settings.keep_versions, in_use):
            log.info("version %d is deleted: %d newer ones are kept", version, self._settings.keep_versions)

    # The record

    async def _begin_record(self, before: Rollout | None, revision: int) -> None:
        """Makes the record of a model that has none, or whose stable version is not published any more."""
        configured = [version for version in read_versions(self._model_folder) if self._is_published(version)]
        stable = configured[0] if configured else newest(self._model_folder)
        why = f"version {before.stable} is not published any more; " if before is not None else ""
        await self._records.replace(
            state.idle(stable, time.time(), f"{why}version {stable} is the stable version"), revision
        )

    async def _fail(self, rollout: Rollout, revision: int, reason: str) -> None:
        await self._move(rollout, revision, lambda now_, at: state.roll_back(now_, reason, at))

    async def _move(self, rollout: Rollout, revision: int, make: Callable[[Rollout, float], Rollout]) -> None:
        """Changes the record, unless somebody has since it was read: then the next tick sees that."""
        try:
            after = make(rollout, time.time())
        except NotPossible:
            return
        if await self._records.replace(after, revision):
            log.info("%s", after.history[-1].text)
            self._window = None
            # The next rollout's versions are pruned when it is over.
            self._cleaned = 0.0

    def _is_published(self, version: int) -> bool:
        return (self._model_folder / str(version)).is_dir()

    def _say(self, note: str) -> None:
        self._note = note

    async def _beat_for_good(self) -> None:
        while True:
            beat = Heartbeat(os.getpid(), time.time(), self._note)
            try:
                await write_heartbeat(self._control, self._settings.model_name, beat)
            except StoreError as error:
                log.error("the driver cannot reach the store: %s", error)
            await asyncio.sleep(TICK_S)


def _listed(versions: Any) -> str:
    return ", ".join(map(str, sorted(versions)))
