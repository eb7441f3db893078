"""An open-loop load: calls leave at the times of a Poisson process, whether those before are answered or not.

A closed loop would wait while a server stalls, and so leave out the very calls that the stall would have
hurt. Latency counts from the moment at which a call was to leave. One line per call goes to a file: when it
was to leave, latency, degraded reason, version and cohort, or the status that it failed with.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

import grpc
import uvloop

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub

_CHANNELS = 4


async def drive(target: str, users: list[str], per_s: float, out: TextIO, deadline_s: float) -> None:
    """Calls until SIGTERM or SIGINT, `per_s` times a second on average."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    channels = [
        grpc.aio.insecure_channel(
            target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        for _ in range(_CHANNELS)
    ]
    stubs = [RecommenderStub(channel) for channel in channels]
    draw = random.Random(1)
    calls: set[asyncio.Task[None]] = set()
    due = time.time()
    while not stop.is_set():
        due += draw.expovariate(per_s)
        if (pause := due - time.time()) > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(
            _call(stubs[len(calls) % _CHANNELS], draw.choice(users), due, out, deadline_s)
        )
        calls.add(task)
        task.add_done_callback(calls.discard)
    if calls:
        await asyncio.wait(calls)
    for channel in channels:
        await channel.close()


async def _call(stub: RecommenderStub, user: str, due: float, out: TextIO, deadline_s: float) -> None:
    line: dict[str, object] = {"at": due}
    try:
        page = await stub.Recommend(pb.RecommendRequest(user_id=user, limit=10), timeout=deadline_s)
    except grpc.aio.AioRpcError as error:
        line["failed"] = f"{error.code().name}: {error.details()}"
    else:
        line |= {"degraded": page.degraded, "version": page.model.version, "cohort": page.cohort}
        line |= {"gateway_ms": page.stages_ms.total, "model_ms": page.stages_ms.model}
    line["ms"] = (time.time() - due) * 1000
    out.write(json.dumps(line) + "\n")


def main() -> None:
    """Reads user ids from standard input, one a line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady")
    parser.add_argument("--target", required=True)
    parser.add_argument("--per-s", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--deadline-s", type=float, default=1.0)
    arguments = parser.parse_args()
    users = sys.stdin.read().split("\n")
    gc.freeze()
    with arguments.out.open("w", buffering=1 << 16) as out:
        uvloop.run(drive(arguments.target, users, arguments.per_s, out, arguments.deadline_s))


if __name__ == "__main__":
    main()
