"""The load: a closed loop of calls, a fixed number in flight, from one process with nothing else to do.

Requests are bytes made beforehand and answers are not parsed while the clock runs, so that the generator
costs the same for every server. One answer in fifty is kept and looked at afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from itertools import cycle

import grpc
import numpy as np
import uvloop

from benchmarks.floor import METHOD as FLOOR_METHOD
from client.riptide.v1 import recommender_pb2 as pb

RECOMMEND_METHOD = "/riptide.v1.Recommender/Recommend"

_CHANNELS = 4
_TIMEOUT_S = 5.0
_KEEP_EVERY = 50


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the generator saw."""

    calls: int
    failed: int
    degraded: int
    """Of the answers that were looked at."""
    looked_at: int
    seconds: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float
    """Cores that the generator itself used."""

    @property
    def per_s(self) -> float:
        """Calls answered per second."""
        return (self.calls - self.failed) / self.seconds


async def drive(target: str, method: str, requests: list[bytes], in_flight: int, seconds: float) -> Load:
    """Calls `method` of `target` for `seconds`, `in_flight` calls at a time."""
    # Channels with one connection each: several workers on a port each get some.
    channels = [
        grpc.aio.insecure_channel(
            target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        for _ in range(_CHANNELS)
    ]
    calls: cycle[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = cycle(
        [channel.unary_unary(method) for channel in channels]
    )
    bodies = cycle(requests)
    latencies: list[float] = []
    kept: list[bytes] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def one_after_another() -> None:
        nonlocal failed
        call = next(calls)
        while (began := time.perf_counter()) < end:
            try:
                answer = await call(next(bodies), timeout=_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                failed += 1
            else:
                if len(latencies) % _KEEP_EVERY == 0:
                    kept.append(answer)
            latencies.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), _cpu_s()
    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
    took, cpu = time.perf_counter() - began, _cpu_s() - cpu
    for channel in channels:
        await channel.close()
    answers = (
        [pb.RecommendResponse.FromString(answer) for answer in kept] if method == RECOMMEND_METHOD else []
    )
    p50, p99 = np.percentile(np.array(latencies) * 1000, [50, 99])
    degraded = sum(answer.degraded != 0 or not answer.items for answer in answers)
    return Load(len(latencies), failed, degraded, len(answers), took, float(p50), float(p99), cpu / took)


def recommend_requests(users: list[str], limit: int = 10) -> list[bytes]:
    """One serialized `Recommend` request per user."""
    return [pb.RecommendRequest(user_id=user, limit=limit).SerializeToString() for user in users]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Reads user ids from standard input, one a line; writes one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    parser.add_argument("--target", required=True)
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    users = sys.stdin.read().split("\n")
    method, requests = (
        (FLOOR_METHOD, [b""]) if arguments.floor else (RECOMMEND_METHOD, recommend_requests(users))
    )
    load = uvloop.run(drive(arguments.target, method, requests, arguments.in_flight, arguments.seconds))
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
