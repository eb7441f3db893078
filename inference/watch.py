"""Whether the stable version still answers, for as long as Triton runs.

Each version is a process of its own. If one dies, killed for memory for instance, Triton goes on calling the
version ready, answers none of its calls, and never starts it again.
"""

from __future__ import annotations

import asyncio
import logging

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

log = logging.getLogger("riptide.inference")

_DEAD = "is not healthy"
"""What Triton says of the process, in the answer to a call that it should have had."""


async def watch_stable(settings: Settings) -> None:
    """Ask the version that is listed first for something small, again and again; never returns.

    It asks for outputs that the version was warmed up with: the first run of others holds up all calls.

    Raises:
        VersionDied: its process is gone.
    """
    folder = settings.model_repository / settings.model_name
    async with open_channel(settings.triton_target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                for version in listed_versions(folder)[:1]:
                    inputs = _small(read_golden(folder / str(version) / "golden.npz").inputs)
                    await infer(stub, settings.model_name, version, inputs, OUTPUT_SETS[0])
            except UnfitModel as error:
                log.error("whether the stable version answers cannot be seen: %s", error)
            except grpc.aio.AioRpcError as error:
                # Others say that it comes or goes, or is late: what that means is not for us to judge.
                if _DEAD in (error.details() or ""):
                    raise VersionDied(
                        f"the process of {settings.model_name} version {version} has died"
                    ) from error


def _small(inputs: Arrays) -> Arrays:
    """One request that has its vector, so that nothing is encoded."""
    one = {name: array[:1] for name, array in inputs.items()}
    if "user_vector_fresh" in one:
        one["user_vector_fresh"] = np.ones_like(one["user_vector_fresh"])
    return one
