"""A running Triton made to serve what `config.pbtxt` lists, and the proof that it does.

The version that is listed first, the stable one, decides whether Triton is ready. The others must not keep it
from its users: what is wrong with them is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from features.settings import PREFIX, Settings
from inference.control import READY, ModelControl, open_control
from inference.errors import ModelNotReady, NoAnswer, NotAllowed, NothingPublished, TritonError
from inference.model_config import CONFIG
from inference.proof import Proof, open_channel, prove_version
from inference.repository import listed_versions

POLL_S = 0.1

log = logging.getLogger("riptide.inference")


async def load_stable(settings: Settings) -> Proof:
    """Load the stable version, and no other, into a Triton that has just started; prove it.

    Raises:
        NothingPublished: no version is listed.
        LoadFailed: Triton cannot load it.
        ModelNotReady: it has not within `triton_ready_s`.
        ProofFailed, UnfitModel: see `prove_version`.
        NotAllowed, UnfitEnvironment: see `inference.control`.
    """
    stable = _listed(settings)[0]
    last = "it is still loading it"
    async with _control(settings) as control:
        try:
            async with asyncio.timeout(settings.triton_ready_s):
                while True:
                    try:
                        await control.load([stable])
                        break
                    except NoAnswer as error:
                        last = str(error)
                        await asyncio.sleep(POLL_S)
        except TimeoutError as exc:
            raise _late(settings, stable, last) from exc
        return await _prove(control, stable, settings)


async def load_others(settings: Settings) -> None:
    """Load the listed versions beside the stable one, each if it can be, and prove them."""
    try:
        async with _control(settings) as control:
            for version in _listed(settings)[1:]:
                # Not all at once: that would be none at all if one cannot be loaded. And what is listed and
                # there is asked for anew each time: a rollout may go on meanwhile.
                there = [other for other, (state, _) in (await control.states()).items() if state == READY]
                wanted = [other for other in _listed(settings) if other in there or other == version]
                try:
                    await control.load(wanted)
                    await _prove(control, version, settings)
                except TritonError as error:
                    log.error("version %d is listed, but not to be relied on: %s", version, error)
    except TritonError as error:
        log.error("%s", error)


async def prove_served(settings: Settings) -> Proof:
    """Wait until a Triton that others manage has the stable version ready; the proof is of that one.

    Raises:
        NothingPublished: no version is listed.
        ModelNotReady: it has not within `triton_ready_s`, or says why it does not.
        ProofFailed, UnfitModel: see `prove_version`, of the stable version.
        UnfitEnvironment: see `open_control`.
    """
    stable, *others = _listed(settings)
    async with _control(settings) as control:
        await _wait_ready(control, stable, settings)
        proof = await _prove(control, stable, settings)
        for version in others:
            try:
                await _prove(control, version, settings)
            except TritonError as error:
                log.error("version %d is listed, but not to be relied on: %s", version, error)
    return proof


@asynccontextmanager
async def _control(settings: Settings) -> AsyncIterator[ModelControl]:
    async with open_channel(settings.triton_target) as channel:
        yield open_control(settings, channel)


def _listed(settings: Settings) -> list[int]:
    folder = settings.model_repository / settings.model_name
    versions = listed_versions(folder)
    if not versions:
        raise NothingPublished(f"{folder / CONFIG}: lists no version that is there; publish one first")
    return versions


async def _prove(control: ModelControl, version: int, settings: Settings) -> Proof:
    return await prove_version(control.stub, settings.model_name, settings.model_repository, version)


async def _wait_ready(control: ModelControl, version: int, settings: Settings) -> None:
    last = "it was not reachable"
    try:
        async with asyncio.timeout(settings.triton_ready_s):
            while not await control.ready(version):
                try:
                    state, reason = (await control.states()).get(version, ("", ""))
                    if state == "UNAVAILABLE" and reason:
                        what = f"{settings.model_name} version {version}"
                        raise ModelNotReady(f"Triton does not serve {what}: {reason}")
                    last = "the server answers, but the version is not loaded"
                except (NoAnswer, NotAllowed) as error:
                    last = str(error)
                await asyncio.sleep(POLL_S)
    except TimeoutError as exc:
        raise _late(settings, version, last) from exc


def _late(settings: Settings, version: int, last: str) -> ModelNotReady:
    return ModelNotReady(
        f"Triton did not have {settings.model_name} version {version} ready within "
        f"{settings.triton_ready_s:g} s: {last}; {PREFIX}TRITON_READY_S sets the longest wait"
    )
