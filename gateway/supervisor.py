"""The gateway's parent process: starts workers, replaces those that die, serves HTTP, passes SIGTERM on.

Workers are started as fresh programs, never forked: a gRPC library in use does not survive a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from features.ports import port_problem
from features.settings import Settings
from features.state_folder import make_state_folder
from gateway import metrics

_RESTART_PAUSE_S = 1.0
# Beyond what a worker takes itself to drain.
_DRAIN_MARGIN_S = 5.0

log = logging.getLogger("riptide.gateway.supervisor")


class PortInUse(Exception):
    """A port that is wanted cannot be listened on."""


def check_ports(settings: Settings) -> None:
    """Makes sure that the gateway can listen on its ports.

    Raises:
        PortInUse: on one it cannot; the sentence names the port and the setting.
    """
    for field in ("grpc_port", "http_port"):
        problem = port_problem(settings, field)
        if problem:
            raise PortInUse(problem)


async def supervise(settings: Settings) -> int:
    """Runs the workers until SIGTERM or SIGINT; the exit status.

    Raises:
        PortInUse: it cannot listen on the gRPC or the HTTP port.
    """
    check_ports(settings)
    make_state_folder(settings.state_dir)
    metrics.prepare(settings.state_dir / "metrics" / str(settings.grpc_port))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keepers = [asyncio.create_task(_keep_worker(settings, stop)) for _ in range(settings.workers)]
    stopped = asyncio.create_task(stop.wait())
    try:
        async with (await asyncio.to_thread(_serving))(settings):
            # A worker that cannot start at all ends its keeper: then there is nothing to supervise.
            await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await asyncio.wait(keepers)
    finally:
        stop.set()  # also if it cannot listen: no worker is left behind
        statuses = await asyncio.gather(*keepers)
    return max(statuses)


def _serving() -> Callable[[Settings], AbstractAsyncContextManager[None]]:
    """What serves HTTP. To import it takes as long as a worker does to start, so both are done at once."""
    from gateway.http import serving

    return serving


async def _keep_worker(settings: Settings, stop: asyncio.Event) -> int:
    """Keeps one worker running until `stop`; the exit status."""
    first = True
    while not stop.is_set():
        began = time.monotonic()
        try:
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "--worker-of",
                str(os.getpid()),
                # A group of its own: Ctrl-C reaches the parent, which tells the workers in order.
                process_group=0,
            )
        except OSError as error:  # no process, memory or open file to be had at the moment; others may serve
            log.error("a worker cannot be started, and is tried again: %s", error)
            await _pause(stop)
            continue
        ended = asyncio.create_task(worker.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            return await _drained(worker, ended, settings.drain_s + _DRAIN_MARGIN_S)
        status = await ended
        metrics.forget_gauges(worker.pid)
        if first and status == 2:
            return status  # told wrongly: starting it again would not help
        # Later on 2 is a fault that may pass, of the store for instance, and other workers may go on serving.
        first = False
        metrics.worker_restarted()
        log.error("worker %d ended with status %d and is replaced", worker.pid, status)
        if time.monotonic() - began < _RESTART_PAUSE_S:
            await _pause(stop)
    return 0


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), _RESTART_PAUSE_S)


async def _drained(worker: asyncio.subprocess.Process, ended: asyncio.Task[int], limit_s: float) -> int:
    """Tells a worker to end; its exit status once it has."""
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        worker.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(limit_s):
            status = await ended
    except TimeoutError:
        log.error("worker %d did not drain in time and is killed", worker.pid)
        worker.kill()
        await worker.wait()
        return 1
    if status == -signal.SIGTERM:
        return 0  # it was still starting, and had nothing to drain
    return 1 if status < 0 else status
