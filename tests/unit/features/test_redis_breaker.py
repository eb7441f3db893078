from __future__ import annotations

import asyncio

import pytest

from features.redis_breaker import FAILURES, OPEN_S, Breaker, Unreachable
from features.store import StoreFull, StoreUnavailable


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("the server", clock)


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unreachable), breaker.call():
            raise Unreachable("no answer")


def is_open(breaker: Breaker) -> bool:
    """Whether a call fails at once; if not, it counts as cancelled."""
    try:
        with breaker.call():
            raise asyncio.CancelledError
    except asyncio.CancelledError:
        return False
    except StoreUnavailable:
        return True


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert not is_open(breaker)
    fail(breaker)
    assert is_open(breaker)
    with pytest.raises(StoreUnavailable, match="the server does not answer"), breaker.call():
        raise AssertionError("it was let through")


def test_a_success_between_failures_keeps_it_closed(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        fail(breaker, FAILURES - 1)
        with breaker.call():
            pass
    assert not is_open(breaker)


def test_a_server_that_answers_with_an_error_has_answered(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    with pytest.raises(StoreFull), breaker.call():
        raise StoreFull("no room")
    fail(breaker)
    assert not is_open(breaker)


def test_after_a_while_one_call_is_let_through_and_the_others_wait_for_its_end(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, FAILURES)
    clock.now += OPEN_S
    with breaker.call():
        assert is_open(breaker)
    assert not is_open(breaker)


def test_a_try_that_fails_opens_it_for_another_while(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.now += OPEN_S
    fail(breaker)
    assert is_open(breaker)
    clock.now += OPEN_S
    with breaker.call():
        pass
    fail(breaker, FAILURES - 1)
    assert not is_open(breaker)


def test_a_try_that_is_cancelled_leaves_the_next_one_to_try(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.now += OPEN_S
    assert not is_open(breaker)
    assert not is_open(breaker)
    with breaker.call():
        pass
    assert not is_open(breaker)
