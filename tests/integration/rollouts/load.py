"""A load of Recommend calls at a fixed rate, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, cycle
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from client.client import _CHANNEL_OPTIONS
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub

DEADLINE_S = 1.0
_LIMIT = 10
_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Call:
    """One call that has ended."""

    began: float
    """`time.time()`."""
    latency_ms: float
    user_id: str
    problem: str
    """Status and sentence of a call that failed; empty: it was answered."""
    degraded: str = ""
    """Why its page is not the model's; empty: it is."""
    version: int = 0
    cohort: str = ""
    items: int = 0


class Load:
    """Calls for one user after the other, as many a second whatever becomes of them (an open loop).

        async with Load(target, users) as load:
            …
        assert load.failed == []

    On leaving, no call begins any more, and those in flight are waited for.

    Args:
        target: `host:port` of the gateway.
        users: user ids, taken in turn.
        rate: calls a second.
        retries: repeat calls that met a dead worker, as Riptide's own client does. Without it what is seen is
            what the gateway answered.
    """

    def __init__(
        self, target: str, users: Sequence[str], *, rate: float = 120, retries: bool = False
    ) -> None:
        self._target = target
        self._users = users
        self._rate = rate
        self._retries = retries
        self.calls: list[Call] = []
        """In the order in which they ended."""

    async def __aenter__(self) -> Self:
        options: list[tuple[str, Any]] = [
            *_CHANNEL_OPTIONS,
            # A connection for each channel: the kernel spreads them over the workers.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", int(self._retries)),
        ]
        self._channels = [grpc.aio.insecure_channel(self._target, options=options) for _ in range(_CHANNELS)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        self._in_flight: set[asyncio.Task[None]] = set()
        self._pacing = asyncio.create_task(self._begin_calls())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await asyncio.gather(*self._in_flight)
        for channel in self._channels:
            await channel.close()

    @property
    def failed(self) -> list[Call]:
        """The calls without an answer."""
        return [call for call in self.calls if call.problem]

    @property
    def degraded(self) -> list[Call]:
        """The calls that were answered without the model."""
        return [call for call in self.calls if call.degraded]

    @property
    def by_version(self) -> Counter[int]:
        """How many calls each version answered."""
        return Counter(call.version for call in self.calls if not call.problem)

    def since(self, moment: float) -> list[Call]:
        """The calls that began after `moment`, `time.time()`."""
        return [call for call in self.calls if call.began > moment]

    async def until(self, calls: int) -> None:
        """Waits until so many more have ended."""
        goal = len(self.calls) + calls
        async with asyncio.timeout(30 + 2 * calls / self._rate):
            while len(self.calls) < goal:
                await asyncio.sleep(0.01)

    async def _begin_calls(self) -> None:
        stubs = cycle([RecommenderStub(channel) for channel in self._channels])
        began = time.monotonic()
        for number, user, stub in zip(count(), cycle(self._users), stubs, strict=False):
            # Late calls begin at once: a load that waits for what is slow would not see it.
            await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            task = asyncio.create_task(self._call(stub, user))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _call(self, stub: RecommenderStub, user: str) -> None:
        at, began = time.time(), time.perf_counter()
        request = pb.RecommendRequest(user_id=user, limit=_LIMIT)
        try:
            answer = await stub.Recommend(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            problem = f"{error.code().name}: {error.details()}"
            self.calls.append(Call(at, (time.perf_counter() - began) * 1000, user, problem))
            return
        degraded = pb.DegradedReason.Name(answer.degraded).removeprefix("DEGRADED_REASON_")
        self.calls.append(
            Call(
                at,
                (time.perf_counter() - began) * 1000,
                user,
                problem="",
                degraded="" if degraded == "UNSPECIFIED" else degraded,
                version=answer.model.version,
                cohort=answer.cohort,
                items=len(answer.items),
            )
        )


def quantile_ms(calls: Sequence[Call], q: float) -> float:
    """The q-quantile of the latencies of `calls`, milliseconds."""
    return float(np.quantile([call.latency_ms for call in calls], q))
