"""Keeps a proven Triton running: starts it, proves it, says so, and starts it again when it or its stable
version dies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from features.settings import Settings
from inference.access import launcher_folder
from inference.backend_folder import write_backend_folder
from inference.environment import find_triton
from inference.errors import NothingPublished, TritonError, TritonExited
from inference.model_config import CONFIG
from inference.proof import Proof
from inference.readiness import load_others, load_stable
from inference.server import TritonServer, check_ports
from inference.watch import watch_stable

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
STABLE_S = 60.0
"""A Triton that served this long starts the pauses from the shortest again."""

T = TypeVar("T")

log = logging.getLogger("riptide.inference")


async def supervise(settings: Settings, stop: asyncio.Event, announce: Callable[[Proof], None]) -> None:
    """Run Triton until `stop` is set; `announce` is called each time that the stable version is ready and
    proven. Other listed versions are loaded after it.

    Raises:
        TritonError: it could not be brought up the first time.
        OSError: likewise, and the machine was why: no process, no space, no permission.

    Once it has been ready, both are logged, and it is started again; likewise when the stable version dies.
    """
    config = settings.model_repository / settings.model_name / CONFIG
    if not config.is_file():
        raise NothingPublished(
            f"{config} does not exist; publish a version first (python -m rollout publish)"
        )
    check_ports(settings)
    triton = find_triton(settings)
    backends = write_backend_folder(triton, launcher_folder(settings) / "backends")
    pause_s = FIRST_PAUSE_S
    attempt, ever_ready = 0, False
    while not stop.is_set():
        attempt += 1
        started = time.monotonic()
        server = None
        try:
            server = await TritonServer.start(settings, triton, backends, attempt=attempt)
            proof = await _unless(stop, server, load_stable(settings))
            if proof is None:
                return
            log.info("ready %.1f s after its start", time.monotonic() - started)
            ever_ready = True
            announce(proof)
            await _unless(stop, server, load_others(settings))
            await _unless(stop, server, watch_stable(settings))
            return
        except (TritonError, OSError) as error:
            if not ever_ready:
                raise
            if time.monotonic() - started > STABLE_S:
                pause_s = FIRST_PAUSE_S
            log.error("%s; starting it again in %.1f s", error, pause_s)
        finally:
            if server is not None:
                await server.stop()
        await _pause(stop, pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _unless(stop: asyncio.Event, server: TritonServer, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None if `stop` came first.

    Raises:
        TritonExited: Triton ended first, with the reason that it gave.
    """
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping, server.ended}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            return None
        if server.ended.done():
            raise TritonExited(f"tritonserver ended with status {server.ended.result()}: {server.complaint}")
        return working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
