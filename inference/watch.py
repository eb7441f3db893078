"""Whether the stable version still answers, for as long as Triton runs.

Each version is a process of its own. If one dies, killed for memory for instance, or hangs, Triton goes on
calling the version ready, answers none of its calls, and never starts it again. Triton itself may hang, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from features.settings import Settings
from inference.errors import UnfitModel, VersionDied
from inference.golden import Arrays, read_golden
from inference.proof import infer, open_channel
from inference.repository import listed_versions
from inference.signature import OUTPUT_SETS

EVERY_S = 2.0
CALL_TIMEOUT_S = 15.0
LATE_CALLS = 2
"""One alone may be late because this process was stopped meanwhile, or the machine asleep."""

log = logging.getLogger("riptide.inference")

_DEAD = "is not healthy"
"""What Triton says of the process, in the answer to a call that it should have had."""


@dataclass(slots=True)
class Watched:
    """A version, what it is asked, and what came of that."""

    version: int
    inputs: Arrays
    outputs: Sequence[str] = OUTPUT_SETS[0]
    """Those that the version was warmed up with: the first run of others holds up all calls."""
    patience: int = LATE_CALLS
    """So many late calls in a row are taken for its death."""
    late: int = 0
    """Calls without an answer in time since the last that had one."""
    silent_since: float = 0.0
    """When the first of them began, on the monotonic clock."""


async def watch_stable(settings: Settings) -> None:
    """Ask the version that is listed first for something small, again and again; never returns.

    Raises:
        VersionDied: see `ask`.
    """
    folder = settings.model_repository / settings.model_name
    async with open_channel(settings.triton_target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stable: Watched | None = None
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                for version in listed_versions(folder)[:1]:
                    if stable is None or stable.version != version:
                        golden = read_golden(folder / str(version) / "golden.npz")
                        stable = Watched(version, _small(golden.inputs))
                    await ask(stub, settings.model_name, stable)
            except UnfitModel as error:
                log.error("whether the stable version answers cannot be seen: %s", error)


async def ask(stub: Any, model: str, watched: Watched) -> None:
    """One call.

    Raises:
        VersionDied: its process is gone, or it hangs: `patience` calls were not answered in time, and none
            was in between.
    """
    began = time.monotonic()
    try:
        await infer(stub, model, watched.version, watched.inputs, watched.outputs, timeout_s=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if _DEAD in (error.details() or ""):
            raise VersionDied(f"the process of {model} version {watched.version} has died") from error
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            # It comes or goes: what that means is not for us to judge. Nor is it an answer: a channel to a
            # Triton that hangs says so each time that it gives up connecting.
            return
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            watched.silent_since = watched.silent_since if watched.late else began
            watched.late += 1
            if watched.late >= watched.patience:
                silent_s = time.monotonic() - watched.silent_since
                raise VersionDied(
                    f"{model} version {watched.version} has not answered for {silent_s:.0f} s"
                ) from error
            return
    watched.late = 0


def _small(inputs: Arrays) -> Arrays:
    """One request that has its vector, so that nothing is encoded."""
    one = {name: array[:1] for name, array in inputs.items()}
    if "user_vector_fresh" in one:
        one["user_vector_fresh"] = np.ones_like(one["user_vector_fresh"])
    return one
