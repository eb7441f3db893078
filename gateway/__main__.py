"""`python -m gateway [--workers N]`: serves Recommend and its sisters until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys

import uvloop

from features.settings import PREFIX, load_settings
from features.store import StoreUnavailable
from gateway import logs
from gateway.routing import RoutingError

_PR_SET_PDEATHSIG = 1


def _die_with(parent: int) -> None:
    """Asks the kernel to end this worker when its parent goes: a SIGKILL leaves nobody on the port."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it went before the line above
        raise SystemExit(1)


def main() -> int:
    """Runs the gateway: 0 after draining, 2 if it was told wrongly."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="The Riptide gateway.")
    parser.add_argument("--workers", type=int, help=f"processes on the gRPC port (or {PREFIX}WORKERS)")
    parser.add_argument("--worker-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.workers is not None:
        os.environ[f"{PREFIX}WORKERS"] = str(arguments.workers)
    settings = load_settings()
    logs.configure(settings.log_level, every_call=settings.access_log)
    try:
        if arguments.worker_of is not None:
            _die_with(arguments.worker_of)
            from gateway.worker import serve

            return uvloop.run(serve(settings))
        from gateway.supervisor import PortInUse, supervise

        try:
            return asyncio.run(supervise(settings))
        except PortInUse as error:
            print(error, file=sys.stderr)
            return 2
    except (RoutingError, StoreUnavailable) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
