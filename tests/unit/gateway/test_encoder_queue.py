from __future__ import annotations

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
