"""The floor: a `grpc.aio` server whose one method does nothing, with as many workers as the gateway.

What it answers per second is what gRPC and Python leave to any gateway on this machine.

With `--triton`, its calls are joined to batches, each a call of Triton whose bytes were made beforehand, and
all get the same answer: what is left to a gateway that joins calls, before it has read a user or made a page.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import grpc
import uvloop

from benchmarks.target import MODEL_INFER, NOTHING, read_bodies
from gateway.coalescer import Coalescer, Waiting
from gateway.scorer import triton_channel
from gateway.worker import let_the_event_loop_run

_TIMEOUT_S = 20.0


async def _nothing(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return b""


Method: TypeAlias = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


async def joined(triton: grpc.aio.Channel, requests: Sequence[bytes], answer: bytes) -> Method:
    """The method that joins calls: `requests[n - 1]` has n rows, and `answer` is what all get.

    Each request is tried first, as h2load takes a call that fails for one that is answered.

    Raises:
        grpc.aio.AioRpcError: Triton refuses one.
    """
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = triton.unary_unary(MODEL_INFER)
    for tried in requests:
        await call(tried, timeout=_TIMEOUT_S)

    async def answer_batch(batch: Sequence[Waiting[bytes, bytes]]) -> None:
        await call(requests[len(batch) - 1], timeout=_TIMEOUT_S)
        for entry in batch:
            if not entry.answer.done():
                entry.answer.set_result(answer)

    coalescer = Coalescer(answer_batch, max_batch=len(requests))

    async def method(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return await coalescer.submit(request, _TIMEOUT_S)

    return method


async def _serve(port: int, triton: int | None = None, bodies: Path | None = None) -> None:
    service, method = NOTHING.strip("/").split("/")
    called: Method = _nothing
    if triton is not None and bodies is not None:
        *requests, answer = read_bodies(bodies)
        called = await joined(triton_channel(f"127.0.0.1:{triton}"), requests, answer)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service, {method: grpc.unary_unary_rpc_method_handler(called)}
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    if triton is not None:  # as the gateway does
        let_the_event_loop_run()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Serves on a port with N processes until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--triton", type=int, help="port of Triton's gRPC; one worker alone then")
    parser.add_argument("--bodies", type=Path, help="requests of 1, 2, … rows, and the answer of all calls")
    arguments = parser.parse_args()
    if (arguments.triton is None) != (arguments.bodies is None):
        parser.error("--triton and --bodies go together")
    if arguments.triton is not None and arguments.workers != 1:
        parser.error("--triton is for one worker")
    command = [sys.executable, "-m", "benchmarks.floor", "--port", str(arguments.port)]
    others = [subprocess.Popen(command) for _ in range(arguments.workers - 1)]
    try:
        uvloop.run(_serve(arguments.port, arguments.triton, arguments.bodies))
    finally:
        for other in others:
            other.terminate()
            other.wait()


if __name__ == "__main__":
    main()
