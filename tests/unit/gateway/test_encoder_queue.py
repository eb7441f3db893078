from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gateway import encoder_queue
from gateway.encoder_queue import Due, EncoderQueue


def everybody(user_id: str, due: Due) -> bool:
    return True


async def test_who_was_kept_for_a_version_comes_back_with_it_the_newest_first_or_when_it_has_gone() -> None:
    queue = EncoderQueue(lambda: None, 10)
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
    queue = EncoderQueue(lambda: None, 10)
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
    queue = EncoderQueue(lambda: None, 10)
    queue.note(["u"])
    assert queue.filled.is_set()
    assert list(queue.take(everybody)) == ["u"]
    assert not queue.filled.is_set()


def one() -> Callable[[str, Due], bool]:
    """Has the queue give one user."""
    left = [True]
    return lambda user_id, due: bool(left) and left.pop()


@pytest.mark.parametrize("seed", range(5))
def test_in_a_flood_nobody_waits_for_more_than_twice_what_all_take(seed: int) -> None:
    """Three users come for each that is encoded, always: the newest alone would keep some out for good."""
    users, draw, queue = [f"u{n}" for n in range(40)], random.Random(seed), EncoderQueue(lambda: None, 1e9)
    came: dict[str, int] = {}
    waited, at_once = [], 0
    for moment in range(5_000):
        for user in draw.sample(users, 3):
            queue.push(user, moment)
            came.setdefault(user, moment)
            newest = user
        [taken] = queue.take(one())
        waited.append(moment - came.pop(taken))
        at_once += taken == newest
    assert max(waited) <= 2 * len(users)
    assert at_once >= 2_500  # every second place is for who comes last


def test_who_is_quiet_for_long_falls_out_and_who_keeps_coming_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, dropped = [100.0], []
    monkeypatch.setattr(encoder_queue.time, "monotonic", lambda: now[0])
    queue = EncoderQueue(lambda: dropped.append(now[0]), 10)
    queue.note(["quiet", "active", "late"])
    now[0] = 106.0
    queue.note(["active"])
    queue.put_back({"back": 90.0})  # as quiet as who is most so
    now[0] = 110.0
    assert queue.oldest == 90.0
    queue.forget("late")
    now[0] = 110.5
    assert list(queue.take(everybody)) == ["active"]
    assert dropped == [110.5, 110.5]
    queue.put_back({"back": 90.0})
    assert list(queue.take(everybody)) == ["back"]
