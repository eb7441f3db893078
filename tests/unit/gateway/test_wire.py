"""What `gateway.wire` writes is what protobuf would have written, read by protobuf itself."""

from __future__ import annotations

import gc
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog, CatalogItem
from gateway import wire
from gateway.page import Degraded, PageItem, Stages
from gateway.wire import Lines, response

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
ITEM = st.builds(CatalogItem, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple))
SCORE = st.floats(width=32, allow_nan=False)
PAGE = st.lists(st.tuples(st.integers(0, 20), SCORE, st.none() | ITEM), max_size=100)


class Items:
    """A catalogue of the items that are asked for, each made up when it is."""

    def __init__(self, *items: CatalogItem) -> None:
        self._items = items

    def get(self, key: int) -> CatalogItem | None:
        return self._items[key - 1] if 0 < key <= len(self._items) else None


def filled(page: list[PageItem]) -> pb.RecommendResponse:
    """The same lines the ordinary way."""
    response = pb.RecommendResponse()
    for rank, line in enumerate(page, 1):
        item = line.item
        added = response.items.add(
            item_id=item.item_id, score=line.score, rank=rank, title=item.title, categories=item.categories
        )
        if line.reason is not None:
            added.reason.item_id = line.reason.item_id
            added.reason.title = line.reason.title
    return response


def catalog_of(*items: CatalogItem) -> Catalog:
    return cast(Catalog, Items(*items))


@given(st.lists(ITEM, min_size=1, max_size=20), PAGE)
def test_any_page_reads_back_as_the_same_lines(
    items: list[CatalogItem], asked: list[tuple[int, float, CatalogItem | None]]
) -> None:
    catalog = catalog_of(*items)
    lines = Lines().of(catalog)
    page = [
        PageItem(key, item, score, reason)
        for key, score, reason in asked
        if (item := catalog.get(key)) is not None
    ]
    without = [line._replace(reason=None) for line in page]
    keys, scores = [key for key, _, _ in asked], [score for _, score, _ in asked]
    for _ in range(2):  # the second time from what is kept
        scored = lines.scored(keys, scores)
        assert pb.RecommendResponse.FromString(scored).items == filled(without).items
        wire = lines.wire(page)
        assert pb.RecommendResponse.FromString(wire).items == filled(page).items
        assert pb.SimilarItemsResponse.FromString(wire).items == filled(page).items


def test_lines_and_the_rest_of_a_message_are_joined_by_writing_one_after_the_other() -> None:
    items = CatalogItem("1", "One", ("a",)), CatalogItem("2", "Two", ())
    page = [PageItem(1, items[0], 2.5, items[1])]
    rest = pb.RecommendResponse(request_id="r", model=pb.ModelVersion(name="m", version=3))
    joined = pb.RecommendResponse.FromString(
        Lines().of(catalog_of(*items)).wire(page) + rest.SerializeToString()
    )
    assert (joined.request_id, joined.model.version) == ("r", 3)
    assert joined.items == filled(page).items


def test_an_item_that_another_version_shows_differently_is_shown_as_that_version_does() -> None:
    lines = Lines()
    for title in ("Old", "New"):
        catalog = catalog_of(CatalogItem("1", title, ()))
        for _ in range(2):
            response = pb.RecommendResponse.FromString(lines.of(catalog).scored([1], [1.0]))
            assert [item.title for item in response.items] == [title]


def test_what_is_kept_of_a_catalogue_goes_with_it() -> None:
    catalog, lines = catalog_of(CatalogItem("1", "One", ())), Lines()
    lines.of(catalog).scored([1], [1.0])
    assert len(lines._kept) == 1
    del catalog
    gc.collect()
    assert not lines._kept


def test_no_more_lines_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_MOST_KEPT", 3)
    catalog = catalog_of(*(CatalogItem(str(n), f"Title {n}", ()) for n in range(10)))
    lines = Lines().of(catalog)
    everything = pb.RecommendResponse.FromString(lines.scored(range(1, 11), [1.0] * 10))
    assert [item.title for item in everything.items] == [f"Title {n}" for n in range(10)]
    assert len(lines._kept) <= 3


MS = st.floats(width=32, min_value=0, allow_nan=False, allow_infinity=False)


ID = st.text(st.characters(exclude_categories=["Cs"]), max_size=32)  # of at most four bytes each


@given(TEXT, st.integers(0, 2**63 - 1), TEXT, st.sampled_from(Degraded), ID, st.builds(Stages, *[MS] * 5))
def test_any_response_reads_back_as_the_fields_that_it_was_made_of(
    model: str, version: int, cohort: str, degraded: Degraded, request_id: str, stages: Stages
) -> None:
    item = CatalogItem("1", "One", ("a",))
    page = [PageItem(1, item, 2.5)]
    lines = Lines().of(catalog_of(item)).wire(page)
    whole = response(model, version, cohort, degraded, request_id, stages, lines)
    assert pb.RecommendResponse.FromString(whole) == pb.RecommendResponse(
        items=filled(page).items,
        model=pb.ModelVersion(name=model, version=version),
        cohort=cohort,
        degraded=f"DEGRADED_REASON_{degraded.value}",
        request_id=request_id,
        stages_ms=pb.StageTimes(**stages._asdict()),
    )
