"""Open-loop calls: when they leave, and from when their latency counts."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from benchmarks.open_loop import drive, poisson_schedule


def test_a_schedule_has_the_rate_and_the_irregularity_of_a_poisson_process() -> None:
    moments = poisson_schedule(200.0, 50.0, seed=3)
    assert len(moments) == pytest.approx(10_000, rel=0.05)
    assert (np.diff(moments) >= 0).all()
    assert moments[-1] < 50.0
    gaps = np.diff(moments)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # of an even schedule it would be 0


def test_a_schedule_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert poisson_schedule(50.0, 4.0, 1).tolist() == poisson_schedule(50.0, 4.0, 1).tolist()
    assert poisson_schedule(50.0, 4.0, 1).tolist() != poisson_schedule(50.0, 4.0, 2).tolist()


def test_even_a_rate_of_less_than_one_call_fills_the_whole_time() -> None:
    moments = poisson_schedule(0.2, 1000.0, 1)
    assert moments[-1] > 900


async def test_latency_counts_from_the_moment_at_which_a_call_was_to_leave() -> None:
    """The first call stalls the process for a while: those that were to leave meanwhile have waited, too."""
    now = 0.0

    def clock() -> float:
        return now

    async def call(index: int) -> bool:
        nonlocal now
        if index == 0:
            now += 5.0
        return True

    # The clock stands still but for the call, so that all are due at once and leave one after the other.
    outcome = await drive(np.array([0.0, 0.0, 0.0]) - 0.05, call, clock)
    assert outcome.latencies == [5.0, 5.0, 5.0]
    assert outcome.late == [0.0, 5.0, 5.0]


async def test_calls_leave_while_those_before_them_are_open() -> None:
    started = asyncio.Event()

    async def call(index: int) -> bool:
        if index == 0:
            await started.wait()  # a closed loop would never make the second call
        else:
            started.set()
        return True

    outcome = await asyncio.wait_for(drive(np.array([0.0, 0.0]), call), 10)
    assert len(outcome.latencies) == 2


async def test_a_call_that_fails_counts_as_failed_and_has_no_latency() -> None:
    async def call(index: int) -> bool:
        return index % 2 == 0

    outcome = await drive(np.zeros(5), call)
    assert outcome.failed == 2
    assert len(outcome.latencies) == 3


async def test_no_further_call_leaves_once_it_is_stopped() -> None:
    stop, made = threading.Event(), []

    async def call(index: int) -> bool:
        made.append(index)
        stop.set()
        return True

    await asyncio.wait_for(drive(np.array([0.0, 3600.0]), call, stop=stop), 60)
    assert made == [0]


async def test_a_defect_of_the_generator_is_not_taken_for_a_failed_call() -> None:
    async def call(index: int) -> bool:
        raise KeyError(index)

    with pytest.raises(KeyError):
        await drive(np.zeros(1), call)
