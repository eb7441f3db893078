from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gateway.encoder_queue import Due, EncoderQueue


def everybody(user_id: str, due: Due) -> bool:
    return True


async def test_who_was_kept_for_a_version_comes_back_with_it_the_newest_first_or_when_it_has_gone() -> None:
    queue = EncoderQueue(lambda: None)
    for n in range(3):
        queue.park(f"of 8, {n}", Due(0.0), 8)
    queue.park("of 9", Due(0.0), 9)
    assert len(queue) == 0
    queue.unpark(8, 1)
    assert list(queue.take(everybody)) == ["of 8, 2"]
    queue.keep_parked({8: "is ready"})
    assert list(queue.take(everybody)) == ["of 9"]
    queue.unpark(8)
    assert sorted(queue.take(everybody)) == ["of 8, 0", "of 8, 1"]


async def test_a_user_who_is_forgotten_is_nowhere_any_more() -> None:
    queue = EncoderQueue(lambda: None)
    queue.note(["due"])
    queue.park("parked", Due(0.0), 8)
    queue.rest("resting")
    queue.note(["resting"])
    for user in ("due", "parked", "resting"):
        queue.forget(user)
    queue.unpark(8)
    queue._rested("resting")
    assert queue.take(everybody) == {}


async def test_an_empty_queue_is_waited_for() -> None:
    queue = EncoderQueue(lambda: None)
    queue.note(["u"])
    assert queue.filled.is_set()
    assert list(queue.take(everybody)) == ["u"]
    assert not queue.filled.is_set()


def one() -> Callable[[str, Due], bool]:
    """Has the queue give one user."""
    left = [True]
    return lambda user_id, due: bool(left) and left.pop()


@pytest.mark.parametrize("reads", [0.0, 0.4, 1.0])
async def test_in_a_flood_nobody_waits_for_more_than_twice_what_all_take(reads: float) -> None:
    """Three users come for each that is encoded, always, and reads wait where that is not long: the newest
    and the awaited alone would keep some out for good."""
    users, draw, queue = [f"u{n}" for n in range(40)], random.Random(1), EncoderQueue(lambda: None)
    came: dict[str, int] = {}
    waited, newest, reading = [], 0, set[str]()
    for moment in range(5_000):
        coming = draw.sample(users, 3)
        for user in coming:
            queue.push(user, moment)
            came.setdefault(user, moment)
        if draw.random() < reads and queue.ahead < 2:
            queue.wait(coming[0], 1)
            reading.add(coming[0])
        [taken] = queue.take(one())
        waited.append(moment - came.pop(taken))
        newest += taken in reading or taken in coming
        reading.discard(taken)
    assert max(waited) <= 2 * len(users)
    assert newest >= 2_500  # every second place is for who comes last, or is waited for


def test_the_queue_is_as_long_as_half_a_minutes_work_and_who_was_quiet_for_longest_falls_out() -> None:
    dropped: list[None] = []
    queue = EncoderQueue(lambda: dropped.append(None))
    queue.note(f"u{n}" for n in range(200))
    queue.note(["u0"])
    assert queue.ahead == 0
    queue.takes(0.3)
    assert (len(queue), len(dropped)) == (100, 100)
    queue.note(["new"])
    assert (len(queue), len(dropped)) == (100, 101)
    assert list(queue.take(one())) == ["new"]
    assert list(queue.take(one())) == ["u0"]  # which was the first to come
    queue.takes(100.0)  # an encoder that hangs leaves some
    assert len(queue) == 64


async def test_a_read_knows_how_many_are_encoded_before_it() -> None:
    queue = EncoderQueue(lambda: None)
    for user in ("a", "b"):
        queue.wait(user, 1)
    assert queue.ahead == 2
    queue.note(["c", "d"])
    assert queue.ahead == 4
    before = [next(iter(queue.take(one()))) for _ in range(3)]
    assert before == ["a", "c", "b"]


def test_users_who_are_put_back_are_next_and_have_waited_since_they_came() -> None:
    dropped: list[None] = []
    queue = EncoderQueue(lambda: dropped.append(None))
    for n in range(64):
        queue.push(f"u{n}", since=n)
    queue.takes(100.0)
    queue.put_back({"early": -1.0, "late": 99.0})
    assert (len(queue), len(dropped)) == (64, 2)  # of whom nothing came for longest, as ever
    assert list(queue.take(everybody))[:4] == ["late", "early", "u63", "u2"]
