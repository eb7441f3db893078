"""The gateway's parent process: starts workers, replaces those that die, serves HTTP, passes SIGTERM on.

Workers are started as fresh programs, never forked: a gRPC library in use does not survive a fork.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time

from features.settings import PREFIX, Settings
from gateway import http, metrics

_RESTART_PAUSE_S = 1.0

log = logging.getLogger("riptide.gateway.supervisor")


class PortInUse(Exception):
    """Somebody else listens on a port that is wanted."""


def check_port(host: str, port: int, setting: str) -> None:
    """Makes sure that nobody listens on a port.

    Raises:
        PortInUse: somebody does; the sentence names the port and the setting.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that a port is not "in use" for the minute after its last connection.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUse(
                f"port {port} on {host} is not free ({error.strerror}); "
                f"set {PREFIX}{setting.upper()} to another one"
            ) from error


async def supervise(settings: Settings) -> int:
    """Runs the workers until SIGTERM or SIGINT; the exit status.

    Raises:
        PortInUse: the gRPC or the HTTP port is taken.
    """
    check_port(settings.host, settings.grpc_port, "grpc_port")
    check_port(settings.host, settings.http_port, "http_port")
    metrics.prepare(settings.state_dir / "metrics" / str(settings.grpc_port))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await http.serve(settings)
    keepers = [asyncio.create_task(_keep_worker(settings, stop)) for _ in range(settings.workers)]
    stopped = asyncio.create_task(stop.wait())
    # A worker that cannot start at all ends its keeper: then there is nothing to supervise.
    await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    statuses = await asyncio.gather(*keepers)
    server.close()
    await server.wait_closed()
    return max(statuses)


async def _keep_worker(settings: Settings, stop: asyncio.Event) -> int:
    while True:
        began = time.monotonic()
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            "--worker-of",
            str(os.getpid()),
            # A group of its own: Ctrl-C reaches the parent, which tells the workers in order.
            process_group=0,
        )
        ended = asyncio.create_task(worker.wait())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set() and not ended.done():
            worker.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(settings.drain_s + 5):
                    return await ended
            except TimeoutError:
                log.error("worker %d did not drain in time and is killed", worker.pid)
                worker.kill()
                await worker.wait()
                return 1
        status = await ended
        if stop.is_set() or status == 2:  # 2: told wrongly, and starting it again would not help
            return status
        log.error("worker %d ended with status %d and is replaced", worker.pid, status)
        if time.monotonic() - began < _RESTART_PAUSE_S:
            await asyncio.sleep(_RESTART_PAUSE_S)
