"""Moves a rollout on: looks at the record a few times a second and does what its phase asks for.

Everything it needs to know is in the record, on disk and in Triton, and every action may be repeated. So the
driver can die at any moment and be started again: it goes on with the phase that the record names.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from features.control import ControlStore
from features.figures import VersionFigures
from features.settings import Settings
from features.store import StoreError
from inference.control import ModelControl
from inference.errors import TritonError
from rollout import state
from rollout.check import check_files, check_memory
from rollout.configuration import read_versions
from rollout.errors import Busy, NotPossible, PreflightFailed, RolloutError
from rollout.heartbeat import Heartbeat, write_heartbeat
from rollout.judge import Verdict, judge
from rollout.loading import Loader
from rollout.records import Records
from rollout.repository import find, newest, prune
from rollout.state import LIVE, UNDER_WAY, Phase, Rollout
from rollout.trial import try_out
from rollout.window import Look, drop_old_reports, look
from rollout.workbench import workbench

TICK_S = 0.25
_OBEY_S = 2.0
"""Gateways that have not confirmed a change after this long are not waited for."""
_RECENT_S = 30.0
"""A candidate is judged over its whole step and over this last part: a long step would hide a change."""
_CLEAN_EVERY_S = 60.0
_MOST_DEFECTS = 3
"""Ticks in a row that may end in an error nobody foresaw, before a rollout under way is rolled back."""

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
        self._loader = Loader(settings, triton)
        self._model_folder = settings.model_repository / settings.model_name
        self._window_of: object = None  # the step that `_looks` are of
        self._looks: deque[Look] = deque()  # the first of the step, then the recent ones
        self._defects = 0
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
                self._defects = 0
            except (StoreError, TritonError, RolloutError, OSError) as error:
                self._say(str(error))
            except Exception as error:
                log.exception("a tick of the driver failed")
                await self._defect(error)
            await asyncio.sleep(TICK_S)

    async def _defect(self, error: Exception) -> None:
        """Nobody judges the candidate while ticks fail: better without it."""
        self._defects += 1
        reason = f"the driver failed {self._defects} times: {type(error).__name__}: {error}"
        self._say(reason)
        if self._defects < _MOST_DEFECTS:
            return
        try:
            rollout, revision = await self._records.read()
            if rollout is not None and rollout.phase in UNDER_WAY | LIVE:
                await self._fail(rollout, revision, reason)
        except (StoreError, RolloutError) as trouble:
            self._say(str(trouble))

    async def tick(self) -> None:
        """Looks once, and does what there is to do.

        Raises:
            StoreError, TritonError, RolloutError, OSError: it could not; nothing is half done.
        """
        rollout, revision = await self._records.read()
        if rollout is None:
            await self._begin_record("", revision)
            return
        await self._clean(rollout)
        if not (self._model_folder / str(rollout.stable)).is_dir():
            await self._without_folder(rollout, revision)
            return
        if (times := self._loader.unsteady) and rollout.phase in UNDER_WAY | LIVE:
            await self._fail(
                rollout, revision, f"Triton went away {times} times in a few minutes", keep=False
            )
            return
        agreement = await self._loader.agree(rollout, obeyed=await self._obeyed(rollout, revision))
        if agreement.failed:
            await self._fail(rollout, revision, agreement.failed, keep=False)
        elif agreement.gone:
            await self._move(rollout, revision, state.not_kept)
        elif agreement.done:
            await self._act(rollout, revision)
        else:
            self._say(agreement.note)

    async def _act(self, rollout: Rollout, revision: int) -> None:
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

    async def _obeyed(self, rollout: Rollout, revision: int) -> bool:
        now = time.time()
        return now - rollout.since > _OBEY_S or (await look(self._control, now)).obeyed(revision)

    # The phases

    async def _check(self, rollout: Rollout, revision: int) -> None:
        assert rollout.candidate is not None
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
        if not await self._seen_everywhere(rollout.candidate):
            return
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
            if await self._loader.look(rollout.stable):  # else Triton went away in the middle of it
                await self._fail(rollout, revision, str(error))
            return
        await self._move(rollout, revision, lambda now_, at: state.proven(now_, at, str(trial)))

    async def _watch(self, rollout: Rollout, revision: int) -> None:
        """Judges the candidate over the time since this step began, and over the last part of it."""
        assert rollout.candidate is not None
        now = time.time()
        seen = await look(self._control, now)
        # After the look: what was counted by then and failed may be an outage that is seen only now.
        await self._loader.look(rollout.stable)
        if not self._loader.settled:
            self._looks.clear()
            return
        of = (rollout.since, rollout.candidate)
        if self._window_of != of or not self._looks:
            self._window_of, self._looks = of, deque([seen])
            self._say("")
            return
        if refusal := seen.refusal(rollout.candidate):
            reason = f"a gateway cannot serve version {rollout.candidate}: {refusal}"
            await self._fail(rollout, revision, reason)
            return
        began = self._looks[0]
        reference, verdict = self._judged(rollout, began, seen)
        recent = next((one for one in self._looks if now - one.at <= _RECENT_S), began)
        breach = verdict.breach or self._judged(rollout, recent, seen)[1].breach
        self._looks.append(seen)
        while len(self._looks) > 2 and now - self._looks[1].at > _RECENT_S:
            del self._looks[1]
        if breach:
            await self._fail(rollout, revision, f"version {rollout.candidate}: {breach}")
            return
        left_s = rollout.plan.step_s - (now - began.at)
        if rollout.held or rollout.phase is Phase.EXPERIMENT:
            self._say(verdict.summary)
        elif verdict.wanting:
            self._say(f"waits for calls: {verdict.wanting}")
        elif left_s > 0:
            self._say(f"{verdict.summary}; {left_s:.0f} s to go")
        elif await self._seen_everywhere(rollout.candidate):
            how = "shadow calls passed" if rollout.phase is Phase.SHADOW else f"{rollout.percent:g} % passed"
            text = f"{how} ({verdict.summary})"
            plain = reference.plain()
            await self._move(rollout, revision, lambda now_, at: state.passed(now_, at, text, plain))

    def _judged(self, rollout: Rollout, began: Look, now: Look) -> tuple[VersionFigures, Verdict]:
        """The verdict over a window, and the figures of the stable version that it was judged by."""
        counted = now.since(began)
        stable = counted.get(rollout.stable, VersionFigures())
        if stable.calls < rollout.plan.bounds.min_calls and rollout.reference:
            stable = VersionFigures.from_plain(rollout.reference)
        candidate = counted.get(rollout.candidate or 0, VersionFigures())
        shadow = rollout.phase is Phase.SHADOW
        return stable, judge(stable, candidate, rollout.plan.bounds, shadow=shadow)

    async def _retire(self, rollout: Rollout, revision: int) -> None:
        left_s = rollout.plan.grace_s - (time.time() - rollout.since)
        if left_s > 0:
            self._say(f"version {rollout.previous} stays loaded for another {left_s:.0f} s")
        elif await self._obeyed(rollout, revision) and await self._seen_everywhere(rollout.stable):
            await self._move(rollout, revision, state.retired)

    async def _seen_everywhere(self, version: int) -> bool:
        """Whether there are gateways, and every one can call the version; says so if not."""
        fresh = (await look(self._control, time.time())).fresh
        if not fresh:
            self._say("waits: no gateway reports")
        elif without := sum(version not in report.ready for report in fresh):
            self._say(f"waits: {without} of {len(fresh)} gateway workers cannot call version {version} yet")
        else:
            return True
        return False

    async def _clean(self, rollout: Rollout) -> None:
        now = time.time()
        if 0 <= now - self._cleaned < _CLEAN_EVERY_S:
            return
        self._cleaned = now
        await drop_old_reports(self._control, now)
        if rollout.phase in (Phase.IDLE, Phase.ROLLED_BACK):
            keep = self._settings.keep_versions
            for version in await asyncio.to_thread(prune, self._model_folder, keep, rollout.in_use):
                log.info("version %d is deleted: %d newer ones are kept", version, keep)

    # The record

    async def _without_folder(self, rollout: Rollout, revision: int) -> None:
        """The folder of the stable version is gone: a new record, unless Triton still has the version."""
        ready = await self._loader.look(rollout.stable)
        if ready is None or rollout.stable in ready or rollout.phase not in (Phase.IDLE, Phase.ROLLED_BACK):
            self._say(f"the folder of the stable version {rollout.stable} is gone: put it back")
        else:
            await self._begin_record(f"version {rollout.stable} is not published any more; ", revision)

    async def _begin_record(self, why: str, revision: int) -> None:
        """Makes the record of a model that has none."""
        published = [
            version
            for version in read_versions(self._model_folder)
            if (self._model_folder / str(version)).is_dir()
        ]
        stable = published[0] if published else newest(self._model_folder)
        await self._records.replace(
            state.idle(stable, time.time(), f"{why}version {stable} is the stable version"), revision
        )

    async def _fail(self, rollout: Rollout, revision: int, reason: str, *, keep: bool = True) -> None:
        await self._move(rollout, revision, lambda now_, at: state.roll_back(now_, reason, at, keep=keep))

    async def _move(self, rollout: Rollout, revision: int, make: Callable[[Rollout, float], Rollout]) -> None:
        """Changes the record, unless somebody has since it was read: then the next tick sees that."""
        try:
            after = make(rollout, time.time())
        except NotPossible:
            return
        if await self._records.replace(after, revision):
            log.info("%s", after.history[-1].text)
            self._looks.clear()
            self._loader.forget_outages()
            # The next rollout's versions are pruned when it is over.
            self._cleaned = 0.0

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
