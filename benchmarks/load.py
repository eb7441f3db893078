"""Our own load generator: one process with nothing else to do.

    python -m benchmarks.load --port 50051 --path /riptide.v1.Recommender/Recommend --bodies FILE
        (--in-flight 64 | --per-s 500) --seconds 6

Closed loop with a number of calls in flight, or open loop at a rate (`benchmarks.open_loop`). Bodies are made
beforehand and answers are not parsed while the clock runs, so that it costs the same for every server; one
answer in fifty is kept and looked at afterwards. Writes one JSON object, `observed.Observed`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TypeAlias

import grpc
import uvloop

from benchmarks.http_connection import HttpConnection
from benchmarks.observed import Observed, looked_at, percentiles_ms
from benchmarks.open_loop import drive, poisson_schedule
from benchmarks.target import RECOMMEND, read_bodies

_CHANNELS = 4
_TIMEOUT_S = 10.0
_KEEP_EVERY = 50

Call: TypeAlias = Callable[[bytes], Awaitable[bytes | None]]
"""A body to its answer; None if it failed."""


async def closed_loop(calls: list[Call], bodies: list[bytes], in_flight: int, seconds: float) -> Observed:
    """`in_flight` calls at a time for `seconds`, over `calls` and `bodies` in turn."""
    latencies: list[float] = []
    kept: list[bytes] = []
    failed = 0
    turn = count()
    end = time.perf_counter() + seconds

    async def one_after_another(call: Call) -> None:
        nonlocal failed
        ended = False
        while not ended:  # at least one call each, however slow the machine
            began = time.perf_counter()
            answer = await call(bodies[next(turn) % len(bodies)])
            now = time.perf_counter()
            ended = now >= end
            if answer is None:
                failed += 1
                continue
            latencies.append(now - began)
            if answer and len(latencies) % _KEEP_EVERY == 1:
                kept.append(answer)

    began, cpu = time.perf_counter(), _cpu_s()
    await asyncio.gather(*(one_after_another(calls[i % len(calls)]) for i in range(in_flight)))
    took, cpu = time.perf_counter() - began, _cpu_s() - cpu
    mean, p50, p99 = percentiles_ms(latencies)
    return Observed(
        f"own, {len(bodies)}",
        len(latencies),
        failed,
        took,
        mean,
        p50,
        p99,
        cpu / took,
        **looked_at(kept),  # type: ignore[arg-type]  # the fields of that name
    )


async def open_loop(
    calls: list[Call],
    bodies: list[bytes],
    per_s: float,
    seconds: float,
    seed: int,
    stop: threading.Event | None = None,
) -> Observed:
    """Calls that leave `per_s` times a second on average, until `stop` is set at the latest.

    A call that failed counts in the mean and the percentiles as one that took the whole time-out: a server
    that fails its slowest calls is no faster for it.
    """
    kept: list[bytes] = []
    answered = 0

    async def call(index: int) -> bool:
        nonlocal answered
        answer = await calls[index % len(calls)](bodies[index % len(bodies)])
        if answer is None:
            return False
        answered += 1
        if answer and answered % _KEEP_EVERY == 1:
            kept.append(answer)
        return True

    schedule = poisson_schedule(per_s, seconds, seed)
    began, cpu = time.perf_counter(), _cpu_s()
    outcome = await drive(schedule, call, stop=stop)
    took, cpu = time.perf_counter() - began, _cpu_s() - cpu
    mean, p50, p99 = percentiles_ms([*outcome.latencies, *[_TIMEOUT_S] * outcome.failed])
    return Observed(
        f"own, {len(bodies)}",
        len(outcome.latencies),
        outcome.failed,
        took,
        mean,
        p50,
        p99,
        cpu / took,
        offered_per_s=len(schedule) / seconds,
        late_p99_ms=percentiles_ms(outcome.late)[2],
        **looked_at(kept),  # type: ignore[arg-type]  # the fields of that name
    )


async def _run(arguments: argparse.Namespace) -> Observed:
    bodies = read_bodies(arguments.bodies)
    async with AsyncExitStack() as stack:
        if arguments.http:
            # HTTP/1.1 takes one call at a time on a connection.
            count_of = arguments.in_flight or 64
            calls: list[Call] = [
                HttpConnection(arguments.port, arguments.path, _TIMEOUT_S) for _ in range(count_of)
            ]
        else:
            # Channels with one connection each: several workers on a port each get some.
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            calls = []
            for _ in range(min(_CHANNELS, arguments.in_flight or _CHANNELS)):
                channel = grpc.aio.insecure_channel(f"127.0.0.1:{arguments.port}", options=options)
                await stack.enter_async_context(channel)
                calls.append(_grpc_call(channel, arguments.path))
        if arguments.path != RECOMMEND or arguments.http:
            calls = [_unseen(call) for call in calls]
        gc.freeze()
        if arguments.per_s:
            stop = threading.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            return await open_loop(calls, bodies, arguments.per_s, arguments.seconds, arguments.seed, stop)
        return await closed_loop(calls, bodies, arguments.in_flight, arguments.seconds)


def _grpc_call(channel: grpc.aio.Channel, path: str) -> Call:
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)

    async def call(body: bytes) -> bytes | None:
        try:
            return await method(body, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return None

    return call


def _unseen(call: Call) -> Call:
    """The same call, of whose answer nothing but its coming counts: it is no `RecommendResponse`."""

    async def unseen(body: bytes) -> bytes | None:
        return None if await call(body) is None else b""

    return unseen


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--bodies", type=Path, required=True)
    parser.add_argument("--http", action="store_true", help="JSON over HTTP/1.1, not gRPC")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--in-flight", type=int)
    how.add_argument("--per-s", type=float)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which calls leave")
    arguments = parser.parse_args()
    print(json.dumps(asdict(uvloop.run(_run(arguments)))))


if __name__ == "__main__":
    main()
