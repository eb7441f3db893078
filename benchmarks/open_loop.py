"""Open-loop calls: they leave at the moments of a Poisson process, whether those before are answered or not.

A closed loop waits while a server stalls, and so leaves out the very calls that the stall would have hurt.
Here latency counts from the moment at which a call was to leave (Tene, "How NOT to Measure Latency", 2013).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_HEAD_START_S = 0.05
MOST_OPEN = 4096
"""Calls in flight at once. A server that far behind answers nobody any more; further calls
fail."""


def poisson_schedule(per_s: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Moments of a Poisson process, seconds from its start, ascending, all below `seconds`; float64 `[n]`."""
    draw = np.random.default_rng(seed)
    moments = np.zeros(0)
    last = 0.0
    while last < seconds:
        more = last + np.cumsum(draw.exponential(1 / per_s, max(16, int(per_s * seconds * 1.1))))
        moments, last = np.concatenate([moments, more]), float(more[-1])
    return moments[moments < seconds]


@dataclass(slots=True)
class Outcome:
    """What became of the calls; times in seconds."""

    latencies: list[float] = field(default_factory=list)
    """From when each was to leave, of those that were answered."""
    late: list[float] = field(default_factory=list)
    """How long after its moment each left."""
    failed: int = 0


async def drive(
    schedule: NDArray[np.float64],
    call: Callable[[int], Awaitable[bool]],
    clock: Callable[[], float] = time.perf_counter,
    stop: threading.Event | None = None,
) -> Outcome:
    """Makes `call(i)` at `schedule[i]`; it returns whether it was answered well. Returns when all are over.

    Once `stop` is set, no further call leaves.

    A thread keeps the time: timers of an event loop are a millisecond coarse, which is as long as a call.
    """
    outcome, loop = Outcome(), asyncio.get_running_loop()
    over = asyncio.Event()
    open_calls: set[asyncio.Task[None]] = set()
    defects: list[BaseException] = []
    start = clock() + _HEAD_START_S
    stop = stop or threading.Event()

    async def one(index: int, due: float) -> None:
        outcome.late.append(clock() - due)
        if await call(index):
            outcome.latencies.append(clock() - due)
        else:
            outcome.failed += 1

    def leave(index: int, due: float) -> None:
        if len(open_calls) >= MOST_OPEN:
            outcome.failed += 1
            return
        task = loop.create_task(one(index, due))
        open_calls.add(task)
        task.add_done_callback(close)

    def close(task: asyncio.Task[None]) -> None:
        open_calls.discard(task)
        if (error := task.exception()) is not None:
            defects.append(error)

    def keep_time() -> None:
        for index, moment in enumerate(schedule.tolist()):
            due = start + moment
            if (pause := due - clock()) > 0:
                stop.wait(pause)
            if stop.is_set():
                break
            loop.call_soon_threadsafe(leave, index, due)
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=keep_time, name="time", daemon=True).start()
    await over.wait()
    while open_calls:
        await asyncio.wait(open_calls)
        await asyncio.sleep(0)  # what follows a call's end comes a turn later
    if defects:  # of the generator: they are to be seen
        raise defects[0]
    return outcome
