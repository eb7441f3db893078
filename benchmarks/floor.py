"""The floor: a `grpc.aio` server whose one method does nothing, with as many workers as the gateway.

What it answers per second is what gRPC and Python leave to any gateway on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys

import grpc
import uvloop

from benchmarks.target import NOTHING


async def _nothing(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b""


async def _serve(port: int) -> None:
    service, method = NOTHING.strip("/").split("/")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service, {method: grpc.unary_unary_rpc_method_handler(_nothing)}
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Serves on a port with N processes until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "benchmarks.floor", "--port", str(arguments.port)]
    others = [subprocess.Popen(command) for _ in range(arguments.workers - 1)]
    try:
        uvloop.run(_serve(arguments.port))
    finally:
        for other in others:
            other.terminate()
            other.wait()


if __name__ == "__main__":
    main()
