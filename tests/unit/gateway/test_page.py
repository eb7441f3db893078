from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.catalog import Catalog
from features.record import EMPTY_RECORD, CachedAnswer, Event, UserRecord, with_events
from features.schema import EventType, item_key
from gateway.page import PageItem, PageRequest, fallback_page, model_page


def seen(*items: str) -> UserRecord:
    events = [Event("u", item, EventType.VIEW, n + 1) for n, item in enumerate(items)]
    return with_events(EMPTY_RECORD, events, 100)[0]


def ids(page: list[PageItem]) -> list[str]:
    return [line.item.item_id for line in page]


def keys(*items: str) -> list[int]:
    return [item_key(item) for item in items]


def test_the_fallback_page_is_the_most_popular_items_the_user_has_not_seen(catalog: Catalog) -> None:
    assert ids(fallback_page(PageRequest("u", 4), catalog, seen("0", "2"))) == ["1", "3", "4", "5"]


def test_the_fallback_page_is_filtered_and_still_full(catalog: Catalog) -> None:
    request = PageRequest("u", 10, categories=("even",), excluded=tuple(keys("4")))
    assert ids(fallback_page(request, catalog, seen("0"))) == [
        str(n) for n in (2, 6, 8, 10, 12, 14, 16, 18, 20, 22)
    ]


def test_the_last_page_comes_before_popular_items_without_repeats_or_what_was_seen_since(
    catalog: Catalog,
) -> None:
    record = seen("9", "7")
    page = np.array(keys("7", "20", "gone from the catalogue", "11"), np.int64)
    record = replace(record, answer=CachedAnswer(1, record.revision, 1, np.zeros(2, np.float32), page))
    assert ids(fallback_page(PageRequest("u", 4), catalog, record)) == ["20", "11", "0", "1"]


def test_include_seen_lets_consumed_items_back_in(catalog: Catalog) -> None:
    assert ids(fallback_page(PageRequest("u", 2, include_seen=True), catalog, seen("0"))) == ["0", "1"]


def test_the_model_page_stops_at_the_limit_and_skips_empty_slots(catalog: Catalog) -> None:
    page = model_page(
        PageRequest("u", 3),
        catalog,
        seen("9"),
        [*keys("5", "6"), 0, *keys("7", "8")],
        [5, 4, 0, 3, 2],
        None,
        16,
    )
    assert ids(page) == ["5", "6", "7"]
    assert [line.score for line in page] == [5, 4, 3]


def test_reasons_stay_with_their_items(catalog: Catalog) -> None:
    page = model_page(
        PageRequest("u", 3, explain=True),
        catalog,
        seen("9"),
        [0, *keys("5", "6", "7")],
        [0, 3, 2, 1],
        [*keys("1", "9"), 0, *keys("8")],
        16,
    )
    assert [line.reason.item_id if line.reason else None for line in page] == ["9", None, "8"]


def test_seen_items_beyond_what_the_model_takes_are_filtered_here(catalog: Catalog) -> None:
    record = seen("3", "4", "5")
    page = model_page(
        PageRequest("u", 9), catalog, record, keys("3", "6", "7"), [3, 2, 1], None, exclude_width=2
    )
    assert ids(page) == ["6", "7"]
