"""Keeps the encoder in step with the recommender: the versions of it that Triton has ready, and no others.

The recommender comes first, and nobody waits for an encoder: without one, gateways encode in the call itself.
So what goes wrong here is told, once, and tried again after a pause, and that is all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from features.encoder_name import encoder_name
from features.settings import Settings
from inference.control import READY, open_control
from inference.encoder_folder import EncoderFolder
from inference.errors import LoadFailed, NoAnswer, TritonError, VersionDied
from inference.golden import read_golden
from inference.proof import prove_encoder
from inference.repository import listed_versions
from inference.signature import ENCODE, ENCODE_INPUTS, ENCODE_OUTPUT
from inference.watch import Watched, ask

TICK_S = 0.5
PROBE_EVERY_S = 5.0
_AGAIN_S = 5.0
"""Pause after a look that failed."""
_LOAD_TIMEOUT_S = 300.0
_PAUSES_S = (2.0, 60.0, 600.0)
"""Before a version's encoder is tried again, after its first, second and each further failure in a row.

They grow fast: if it is what brings Triton down, a rollout must not take that for its candidate's fault
(`rollout/loading.py`).
"""
_WELL_S = 60.0
"""An encoder that served so long has left its failures behind."""
_LATE_CALLS = 6
"""Of its small calls. Its queue may be long, and its priority is low: being late is no defect."""

_LOADING = "LOADING"
_NO_SIGNATURE = f"no signature '{ENCODE}'"

log = logging.getLogger("riptide.inference")


@dataclass(slots=True)
class _Failures:
    """Of one version's encoder, in a row."""

    times: int = 0
    not_before: float = 0.0
    """On the monotonic clock."""
    reason: str = ""
    """The one that was told last."""


@dataclass(frozen=True, slots=True)
class _Proven:
    """An encoder that gave the golden answers, and what it is asked again and again since."""

    watched: Watched
    since: float
    """On the monotonic clock."""


class Encoders:
    """The encoders of the model that `settings` name, in the Triton at `channel`; `follow` does all there is
    to do.

    Raises:
        UnfitEnvironment: see `open_control`.
    """

    def __init__(self, settings: Settings, channel: grpc.aio.Channel) -> None:
        self._name = encoder_name(settings.model_name)
        self._model_folder = settings.model_repository / settings.model_name
        self._recommender = open_control(settings, channel)
        self._encoder = open_control(settings, channel, self._name)
        self._folder = EncoderFolder(self._model_folder)
        self._proven: dict[int, _Proven] = {}
        self._died: dict[int, str] = {}
        self._failures: dict[int, _Failures] = {}
        self._without: set[int] = set()  # whose SavedModel has no such signature
        self._said = ""

    @property
    def proven(self) -> set[int]:
        """The versions whose encoder is ready and has given the golden answers."""
        return set(self._proven)

    async def follow(self) -> None:
        """Ends only when it is cancelled, and raises nothing else."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tick_for_good())
            # Beside it: an encoder that hangs holds up nothing but the question whether it does.
            both.create_task(self._probe_for_good())

    async def _tick_for_good(self) -> None:
        while True:
            pause_s = TICK_S
            try:
                await self.tick()
                self._said = ""
            except NoAnswer:
                pass  # the launcher and the driver see to that
            except Exception as error:  # also a defect of ours: it must not take the driver along
                pause_s = _AGAIN_S
                self._say(error)
            await asyncio.sleep(pause_s)

    async def tick(self) -> None:
        """Looks once, and takes one step if there is one to take: lets go of some, or loads one.

        Raises:
            TritonError, OSError: it could not.
        """
        states = await self._recommender.states()
        if not (wanted := _ready(states)):
            self._proven.clear()
            return  # Triton has just started, or is about to end
        encoders = await self._encoder.states()
        there = _ready(encoders)
        self._proven = {version: proven for version, proven in self._proven.items() if version in there}
        died, self._died = self._died, {}
        for version in there & died.keys():
            self._fail(version, died[version])
        if going := (there - wanted) | (there & died.keys()):
            await self._keep(there - going)
            return
        for version in sorted(there - self._proven.keys()):  # of a driver before this one
            await self._prove(version, there)
            return
        if self._recommender_loads(states) or _LOADING in {state for state, _ in encoders.values()}:
            return
        for version in sorted(wanted - there - self._without):
            if time.monotonic() >= self._failures.setdefault(version, _Failures()).not_before:
                await self._bring(version, there)
                return

    def _recommender_loads(self, states: Mapping[int, tuple[str, str]]) -> bool:
        """Whether Triton loads a version of it, or has yet to try one that is listed: that comes first."""
        listed = listed_versions(self._model_folder)
        return not states.keys() >= set(listed) or _LOADING in {state for state, _ in states.values()}

    async def _bring(self, version: int, there: set[int]) -> None:
        try:
            await asyncio.to_thread(self._folder.link, version)
            self._folder.configure(sorted(there | {version}))
            await self._encoder.load(timeout_s=_LOAD_TIMEOUT_S)
        except LoadFailed as error:
            if _NO_SIGNATURE not in str(error):
                self._fail(version, str(error))
                return
            self._without.add(version)
            log.warning("version %d has no encoder: %s", version, error)
        except (TritonError, OSError) as error:
            self._fail(version, str(error))
        else:
            await self._prove(version, there | {version})

    async def _prove(self, version: int, there: set[int]) -> None:
        try:
            golden = read_golden(self._model_folder / str(version) / "golden.npz")
            proof = await prove_encoder(self._encoder.stub, self._name, version, golden)
        except TritonError as error:
            self._fail(version, str(error))
            await self._keep(there - {version})
            return
        inputs = {name: golden.inputs[name][:1] for name in ENCODE_INPUTS if name in golden.inputs}
        watched = Watched(version, inputs, (ENCODE_OUTPUT,), _LATE_CALLS)
        self._proven[version] = _Proven(watched, time.monotonic())
        log.info("encoder ready: %s", proof)

    async def _keep(self, versions: set[int]) -> None:
        """Lets go of all others."""
        if not versions:
            await self._encoder.unload(timeout_s=_LOAD_TIMEOUT_S)
            return
        self._folder.configure(sorted(versions))
        await self._encoder.load(timeout_s=_LOAD_TIMEOUT_S)

    def _fail(self, version: int, reason: str) -> None:
        failures = self._failures.setdefault(version, _Failures())
        proven = self._proven.pop(version, None)
        if proven is not None and time.monotonic() - proven.since >= _WELL_S:
            failures.times = 0
        failures.not_before = time.monotonic() + _PAUSES_S[min(failures.times, len(_PAUSES_S) - 1)]
        failures.times += 1
        if reason != failures.reason:
            failures.reason = reason
            log.error("version %d is without its encoder for now: %s", version, reason)

    def _say(self, error: Exception) -> None:
        said = f"{type(error).__name__}: {error}"
        if said != self._said:
            self._said = said
            unforeseen = not isinstance(error, TritonError | OSError)
            log.error("encoders cannot be kept in step: %s", said, exc_info=error if unforeseen else None)

    async def _probe_for_good(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await asyncio.gather(*(self._probe(proven) for proven in list(self._proven.values())))

    async def _probe(self, proven: _Proven) -> None:
        version = proven.watched.version
        try:
            await ask(self._encoder.stub, self._name, proven.watched)
        except VersionDied as error:
            if self._proven.get(version) is proven:  # else it has been let go of since
                self._died[version] = str(error)
        except Exception as error:  # see `_tick_for_good`
            self._say(error)


def _ready(states: Mapping[int, tuple[str, str]]) -> set[int]:
    return {version for version, (state, _) in states.items() if state == READY}
