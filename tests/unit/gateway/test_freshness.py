from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from features.catalog import Catalog
from features.record import EMPTY_RECORD, CachedAnswer, Event, UserRecord, with_answer, with_events
from features.schema import EventType
from gateway.freshness import NOTHING, cached
from tests.unit.gateway.fakes import ranking_version, serving_version

SEEN_AT = 1_000_000
"""Of the user's last event, Unix seconds."""


def user(*events: tuple[str, int], kind: EventType = EventType.CLICK) -> UserRecord:
    return with_events(EMPTY_RECORD, [Event("u", item, kind, at) for item, at in events], 100).record


def encoded(record: UserRecord, computed_at: int, version: int = 7) -> UserRecord:
    """`record` with a vector of now."""
    vector, no_page = np.ones(2, np.float32), np.empty(0, np.int64)
    return with_answer(
        record, CachedAnswer(version, record.revision, computed_at, vector, no_page, page_is_current=False)
    )


def test_a_vector_of_the_whole_history_does_not_lag(catalog: Catalog) -> None:
    record = encoded(user(("1", SEEN_AT)), SEEN_AT + 100)
    found = cached(record, serving_version(7, catalog), (SEEN_AT + 100) * 10**9)
    assert found.answer is record.answer
    assert found.lag_s == 0
    assert found.within(0) is record.answer


def test_a_vector_of_another_version_is_nothing(catalog: Catalog) -> None:
    record = encoded(user(("1", SEEN_AT)), SEEN_AT + 100)
    assert cached(record, serving_version(8, catalog), (SEEN_AT + 100) * 10**9) == NOTHING
    assert NOTHING.within(10**9) is None


def test_a_vector_lags_since_the_first_event_that_it_does_not_cover(catalog: Catalog) -> None:
    now = int(time.time())
    record = encoded(user(("1", now - 1000)), now)
    record = with_events(record, [Event("u", "2", EventType.CLICK, now - 900)], 100).record
    record = with_events(record, [Event("u", "3", EventType.CLICK, now - 800)], 100).record
    assert record.answer is not None
    behind_since = record.answer.behind_since
    found = cached(record, serving_version(7, catalog), behind_since + 4 * 10**9)
    assert found.lag_s == pytest.approx(4)
    assert found.within(0) is None
    assert found.within(3.9) is None
    assert found.within(4.1) is record.answer


def test_a_vector_that_does_not_cover_an_event_lags_whatever_the_clocks_say(catalog: Catalog) -> None:
    now = int(time.time())
    record = encoded(user(("1", now - 1000)), now)
    record = with_events(record, [Event("u", "2", EventType.CLICK, now - 900)], 100).record
    assert record.answer is not None
    # The event came through a gateway whose clock is a minute ahead of this one's.
    found = cached(record, serving_version(7, catalog), record.answer.behind_since - 60 * 10**9)
    assert found.lag_s > 0
    assert found.within(0) is None


@pytest.mark.parametrize(("age_s", "next_s"), [(0, 1), (1, 3), (2, 3), (3, 7), (100, 127), (127, 255)])
def test_a_vector_lags_from_when_the_last_event_is_about_twice_as_old(
    catalog: Catalog, age_s: int, next_s: int
) -> None:
    record = encoded(user(("0", SEEN_AT - 500), ("1", SEEN_AT)), SEEN_AT + age_s)
    version = serving_version(7, catalog)
    assert cached(record, version, (SEEN_AT + next_s) * 10**9).lag_s == 0
    assert cached(record, version, (SEEN_AT + next_s + 2) * 10**9).lag_s == 2


def test_events_that_a_version_is_not_told_of_have_no_age(catalog: Catalog) -> None:
    record = user(("1", SEEN_AT), kind=EventType.CLICK)
    record = with_events(record, [Event("u", "2", EventType.VIEW, SEEN_AT + 90)], 100).record
    record = encoded(record, SEEN_AT + 100)
    told = ranking_version(7, catalog, counts=[EventType.CLICK])
    # The view has become twice as old, the click has not.
    at = (SEEN_AT + 110) * 10**9
    assert cached(record, told, at).lag_s == 0
    assert cached(record, replace(told, counts=None), at).lag_s > 0


def test_a_vector_is_due_at_once_after_a_change_and_later_if_only_time_has_passed(catalog: Catalog) -> None:
    version = serving_version(7, catalog)
    aged = encoded(user(("0", SEEN_AT - 500), ("1", SEEN_AT)), SEEN_AT + 100)
    found = [cached(aged, version, (SEEN_AT + 127 + lag_s) * 10**9) for lag_s in (0, 4, 6)]
    assert [each.due(10.0) for each in found] == [False, False, True]
    assert [each.due(0.0) for each in found] == [False, True, True]
    now = int(time.time())
    changed = encoded(user(("1", now - 1000)), now)
    changed = with_events(changed, [Event("u", "2", EventType.CLICK, now - 900)], 100).record
    assert cached(changed, version, time.time_ns()).due(10.0)
    assert not NOTHING.due(0.0)
