from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.coalescer import _ENOUGH, _QUIET_TURNS, _QUIET_TURNS_ALONE, Coalescer, Waiting
from gateway.errors import ModelUnavailable

Entries = Sequence[Waiting[int, int]]


class Doubler:
    """Answers each batch when told to, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, batch: Entries) -> None:
        self.batches.append([entry.asked for entry in batch])
        await self.gate.wait()
        for entry in batch:
            if not entry.answer.done():
                entry.answer.set_result(2 * entry.asked)


async def submitted(
    coalescer: Coalescer[int, int], values: range, timeout_s: float = 5
) -> list[asyncio.Future[int]]:
    tasks = [coalescer.submit(value, timeout_s) for value in values]
    await gathered()
    return tasks


async def gathered() -> None:
    """Lets the event loop turn as often as a batch waits for more at most."""
    for _ in range(_QUIET_TURNS + 3):
        await asyncio.sleep(0)


async def test_a_lone_request_leaves_at_once_and_those_that_come_meanwhile_share_the_next_batch() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64)
    tasks = await submitted(coalescer, range(1)) + await submitted(coalescer, range(1, 6))
    double.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert double.batches == [[0], [1, 2, 3, 4, 5]]


async def test_a_batch_goes_on_gathering_while_requests_keep_coming() -> None:
    double = Doubler()
    double.gate.set()
    coalescer = Coalescer(double, max_batch=64)
    tasks = []
    for value in range(4):
        tasks.append(coalescer.submit(value, 5))
        for _ in range(
            _QUIET_TURNS // 2
        ):  # three such gaps are more turns than a batch waits for one request
            await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
    assert double.batches == [[0, 1, 2, 3]]


async def turns_until_gone(coalescer: Coalescer[int, int], double: Doubler, values: range) -> int:
    """Turns of the event loop until requests that come together have left."""
    before = len(double.batches)
    tasks = [coalescer.submit(value, 5) for value in values]
    turns = 0
    while len(double.batches) == before:
        await asyncio.sleep(0)
        turns += 1
    await asyncio.gather(*tasks)
    return turns


async def test_requests_that_come_one_at_a_time_wait_for_nobody_and_a_second_one_is_waited_for_again() -> (
    None
):
    double = Doubler()
    double.gate.set()
    coalescer = Coalescer(double, max_batch=64)
    few = _QUIET_TURNS_ALONE + 4
    assert await turns_until_gone(coalescer, double, range(1)) > few
    assert await turns_until_gone(coalescer, double, range(1)) <= few
    assert await turns_until_gone(coalescer, double, range(2)) > few
    assert await turns_until_gone(coalescer, double, range(1)) > few
    assert await turns_until_gone(coalescer, double, range(1)) <= few


async def test_a_batch_holds_no_more_than_max_batch() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=4)
    tasks = await submitted(coalescer, range(10))
    double.gate.set()
    assert await asyncio.gather(*tasks) == [2 * n for n in range(10)]
    assert [len(batch) for batch in double.batches] == [4, 4, 2]


async def test_while_one_batch_is_away_a_second_one_leaves_when_it_is_worth_it_and_never_a_third() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64)
    tasks = await submitted(coalescer, range(1))
    tasks += await submitted(coalescer, range(1, _ENOUGH))
    assert [len(batch) for batch in double.batches] == [1]
    tasks += await submitted(coalescer, range(_ENOUGH, 3 * _ENOUGH + 1))
    assert [len(batch) for batch in double.batches] == [1, _ENOUGH]
    double.gate.set()
    assert await asyncio.gather(*tasks) == [2 * n for n in range(3 * _ENOUGH + 1)]
    assert [len(batch) for batch in double.batches] == [1, _ENOUGH, 2 * _ENOUGH]


async def test_without_joining_every_request_goes_alone_and_at_once() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64, join=False)
    tasks = await submitted(coalescer, range(5))
    await asyncio.sleep(0)
    assert double.batches == [[0], [1], [2], [3], [4]]
    double.gate.set()
    await asyncio.gather(*tasks)


async def test_a_request_whose_time_is_up_is_told_so_and_is_not_sent() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64)
    [first] = await submitted(coalescer, range(1))
    [hurried] = await submitted(coalescer, range(1, 2), timeout_s=0.01)
    [patient] = await submitted(coalescer, range(2, 3))
    with pytest.raises(ModelUnavailable):
        await hurried
    double.gate.set()
    assert (await first, await patient) == (0, 4)
    assert double.batches == [[0], [2]]


async def test_a_cancelled_caller_leaves_its_neighbours_their_answers() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64)
    tasks = await submitted(coalescer, range(1)) + await submitted(coalescer, range(1, 4))
    tasks[2].cancel()
    double.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [0, 2, 6]
    assert isinstance(answers[2], asyncio.CancelledError)


async def test_what_a_batch_raises_reaches_all_of_its_callers_and_no_others() -> None:
    calls = 0

    async def fail_first(batch: Entries) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ModelUnavailable("down")
        for entry in batch:
            entry.answer.set_result(entry.asked)

    coalescer = Coalescer(fail_first, max_batch=64)
    [first] = await submitted(coalescer, range(1))
    [second] = await submitted(coalescer, range(1, 2))
    with pytest.raises(ModelUnavailable, match="down"):
        await first
    assert await second == 1


async def test_close_waits_for_what_is_in_flight_and_for_what_gathers() -> None:
    double = Doubler()
    coalescer = Coalescer(double, max_batch=64)
    first = await submitted(coalescer, range(1))
    closing = asyncio.create_task(coalescer.close())
    await gathered()
    assert not closing.done()
    double.gate.set()
    await closing
    assert await first[0] == 0
    # Nothing is in flight, and what has just come only gathers.
    second = coalescer.submit(1, 5)
    await asyncio.sleep(0)
    await coalescer.close()
    assert double.batches == [[0], [1]]
    assert await second == 2


async def test_an_entry_that_was_set_aside_and_has_come_back_does_not_share_its_first_batchs_failure() -> (
    None
):
    gate, calls = asyncio.Event(), 0
    coalescer: Coalescer[int, int]

    async def answer(batch: Entries) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            aside = batch[0]
            aside.aside = True
            asyncio.get_running_loop().call_soon(coalescer.put_first, aside)
            await asyncio.sleep(0.01)  # it is back by now, and waits for this batch to end
            raise ModelUnavailable("down")
        await gate.wait()
        for entry in batch:
            entry.answer.set_result(2 * entry.asked)

    coalescer = Coalescer(answer, max_batch=64)
    first, second = await submitted(coalescer, range(2))
    with pytest.raises(ModelUnavailable, match="down"):
        await second
    gate.set()
    assert await first == 0


async def test_an_entry_that_comes_back_to_an_idle_coalescer_is_told_when_its_time_is_up() -> None:
    asides: list[Waiting[int, int]] = []

    async def answer(batch: Entries) -> None:
        if not asides:
            batch[0].aside = True
            asides.extend(batch)
            return
        await asyncio.Event().wait()

    coalescer: Coalescer[int, int] = Coalescer(answer, max_batch=64)
    [waits] = await submitted(coalescer, range(1), timeout_s=0.1)
    await asyncio.sleep(0.03)  # nothing waits and nothing runs: nobody is looked at any more
    assert coalescer.idle
    coalescer.put_first(asides[0])
    with pytest.raises(ModelUnavailable):
        await asyncio.wait_for(waits, 5)
