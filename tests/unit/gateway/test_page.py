from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.catalog import Catalog
from features.record import EMPTY_RECORD, CachedAnswer, Event, UserRecord, with_events
from features.schema import EventType, item_key
from gateway.page import PageItem, PageRequest, fallback_page, model_page, similar_page
from tests.unit.gateway.conftest import numbered_catalog


def seen(*items: str) -> UserRecord:
    events = [Event("u", item, EventType.VIEW, n + 1) for n, item in enumerate(items)]
    return with_events(EMPTY_RECORD, events, 100).record


def ids(page: list[PageItem]) -> list[str]:
    return [line.item.item_id for line in page]


def keys(*items: str) -> list[int]:
    return [item_key(item) for item in items]


def answer(catalog: Catalog, keys: list[int], reasons: list[int] | None = None) -> list[PageItem]:
    scores = [float(n) for n in range(len(keys), 0, -1)]
    return model_page(catalog, keys, scores, reasons)


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
    record = record._replace(answer=CachedAnswer(1, record.revision, 1, np.zeros(2, np.float32), page, True))
    assert ids(fallback_page(PageRequest("u", 4), catalog, record)) == ["20", "11", "0", "1"]
    everything = ids(fallback_page(PageRequest("u", 100), catalog, record))
    assert sorted(everything, key=int) == [str(n) for n in range(30) if n not in (7, 9)]


def test_include_seen_lets_consumed_items_back_in(catalog: Catalog) -> None:
    assert ids(fallback_page(PageRequest("u", 2, include_seen=True), catalog, seen("0"))) == ["0", "1"]


def test_only_what_events_of_a_consuming_type_are_of_counts_as_seen(catalog: Catalog) -> None:
    viewed, none = np.arange(256) == EventType.VIEW, np.zeros(256, np.bool_)
    assert ids(fallback_page(PageRequest("u", 2), catalog, seen("0"), viewed)) == ["1", "2"]
    assert ids(fallback_page(PageRequest("u", 2), catalog, seen("0"), none)) == ["0", "1"]


def test_what_is_published_later_is_on_no_page_whatever_stands_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 28 most popular ones come in an hour; "29" came long ago."""
    soon = int(time.time()) + 3600
    catalog = numbered_catalog(tmp_path / "catalog.lmdb", [soon] * 28 + [0, 1_000])
    record = seen()
    page = np.array(keys("3", "29"), np.int64)
    kept = record._replace(answer=CachedAnswer(1, record.revision, 1, np.zeros(2, np.float32), page, True))
    assert ids(fallback_page(PageRequest("u", 1), catalog, record)) == ["28"]
    assert ids(fallback_page(PageRequest("u", 5), catalog, record)) == ["28", "29"]
    assert ids(fallback_page(PageRequest("u", 5), catalog, kept)) == ["29", "28"]
    assert ids(fallback_page(PageRequest("u", 5, categories=("even",)), catalog, record)) == ["28"]
    assert ids(fallback_page(PageRequest("u", 5, time=999), catalog, record)) == ["28"]
    assert len(fallback_page(PageRequest("u", 30, time=soon), catalog, record)) == 30
    monkeypatch.setattr("gateway.page._MOST_LOOKED_AT", 28)
    assert ids(fallback_page(PageRequest("u", 5), catalog, record)) == []
    monkeypatch.setattr("gateway.page._MOST_LOOKED_AT", 29)
    assert ids(fallback_page(PageRequest("u", 5), catalog, kept)) == ["29", "28"]
    similar = similar_page(catalog, item_key("26"), 5, (), ()) or []
    assert ids(similar) == ["28", "29"]
    catalog.close()


@pytest.mark.parametrize(
    "asked",
    [
        {"categories": ("even",)},
        {"excluded": (1,)},
        {"include_seen": True},
        {"time": 1},
    ],
)
def test_a_page_is_plain_only_if_it_may_stand_for_a_later_one(asked: dict[str, Any]) -> None:
    assert PageRequest("u", 5, explain=True, surface="home", diversity=0.1).plain
    assert not PageRequest("u", 5, **asked).plain


def test_the_model_page_keeps_the_order_and_skips_empty_slots(catalog: Catalog) -> None:
    page = answer(catalog, keys("5", "6", "7"))
    assert ids(page) == ["5", "6", "7"]
    assert [line.score for line in page] == [3, 2, 1]
    assert ids(answer(catalog, [*keys("5", "6"), 0, 0])) == ["5", "6"]


def test_reasons_stay_with_their_items(catalog: Catalog) -> None:
    page = answer(catalog, keys("5", "gone", "6", "7"), [*keys("1", "2"), 0, *keys("8")])
    assert [line.reason.item_id if line.reason else None for line in page] == ["1", None, "8"]


def test_similar_items_keep_their_order_and_scores_and_are_filtered(catalog: Catalog) -> None:
    def near(*arguments: tuple[object, ...], limit: int = 10) -> list[tuple[str, float]]:
        page = similar_page(catalog, item_key("4"), limit, *arguments) or []  # type: ignore[arg-type]  # a table
        return [(line.item.item_id, round(line.score, 2)) for line in page]

    assert near((), ()) == [("5", 0.9), ("6", 0.8), ("7", 0.7)]
    assert near((), (), limit=2) == [("5", 0.9), ("6", 0.8)]
    assert near(("even",), ()) == [("6", 0.8)]
    assert near((), tuple(keys("5"))) == [("6", 0.8), ("7", 0.7)]
    assert similar_page(catalog, item_key("no such"), 5, (), ()) is None
