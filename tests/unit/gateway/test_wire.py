"""What `gateway.wire` writes is what protobuf would have written, read by protobuf itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import CatalogItem
from gateway.page import PageItem
from gateway.wire import Lines, head

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
ITEM = st.builds(CatalogItem, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple))
LINE = st.builds(PageItem, ITEM, st.floats(width=32, allow_nan=False), st.none() | ITEM)


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


@given(st.lists(LINE, max_size=100))
def test_any_page_reads_back_as_the_same_lines(page: list[PageItem]) -> None:
    lines = Lines()
    for _ in range(2):  # the second time from what is kept
        assert pb.RecommendResponse.FromString(lines.wire(page)).items == filled(page).items
        assert pb.SimilarItemsResponse.FromString(lines.wire(page)).items == filled(page).items


def test_lines_and_the_rest_of_a_message_are_joined_by_writing_one_after_the_other() -> None:
    page = [PageItem(CatalogItem("1", "One", ("a",)), 2.5, CatalogItem("2", "Two", ()))]
    rest = pb.RecommendResponse(request_id="r", model=pb.ModelVersion(name="m", version=3))
    joined = pb.RecommendResponse.FromString(Lines().wire(page) + rest.SerializeToString())
    assert (joined.request_id, joined.model.version) == ("r", 3)
    assert joined.items == filled(page).items


def test_an_item_that_another_version_shows_differently_is_shown_as_that_version_does() -> None:
    lines = Lines()
    lines.wire([PageItem(CatalogItem("1", "Old", ()), 1.0)])
    response = pb.RecommendResponse.FromString(lines.wire([PageItem(CatalogItem("1", "New", ()), 1.0)]))
    assert response.items[0].title == "New"


MS = st.floats(width=32, min_value=0, allow_nan=False, allow_infinity=False)


@given(TEXT, st.integers(0, 2**63 - 1), TEXT, st.sampled_from(pb.DegradedReason.values()), TEXT, *[MS] * 5)
def test_any_head_reads_back_as_the_fields_that_it_was_made_of(
    model: str,
    version: int,
    cohort: str,
    degraded: int,
    request_id: str,
    queue: float,
    features: float,
    scored: float,
    page: float,
    total: float,
) -> None:
    wire = head(
        model,
        version,
        cohort,
        degraded,
        request_id,
        queue_ms=queue,
        features_ms=features,
        model_ms=scored,
        page_ms=page,
        total_ms=total,
    )
    assert pb.RecommendResponse.FromString(wire) == pb.RecommendResponse(
        model=pb.ModelVersion(name=model, version=version),
        cohort=cohort,
        degraded=degraded,  # type: ignore[arg-type]
        request_id=request_id,
        stages_ms=pb.StageTimes(queue=queue, features=features, model=scored, page=page, total=total),
    )
