"""What a version is sent beside history, exclusions and filter, and for whom there is something to send."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from features.catalog import Catalog
from features.record import EMPTY_RECORD, CachedAnswer, Event, with_attributes, with_events
from features.schema import EventType, feature_key, item_key, item_keys, surface_key
from gateway import fit
from gateway.errors import ModelUnavailable
from gateway.model_inputs import FILLABLE_INPUTS
from gateway.page import Degraded
from inference.proof import TRITON_NAMES
from inference.signature import ADDED_INPUTS, INPUTS
from tests.unit.gateway.fakes import ranking_version, serving_version
from tests.unit.gateway.request_path import RequestPath, ids


@pytest.fixture
def path(catalog: Catalog) -> RequestPath:
    """Version 7, which takes all inputs, is stable; "u" has a history, "new" has attributes alone."""
    path = RequestPath(catalog)
    serve(path, catalog, "country", "age")
    events = [Event("u", "1", EventType.PURCHASE, 5), Event("u", "2", EventType.CLICK, 6)]
    path.store.records["u"] = with_events(EMPTY_RECORD, events, 100).record
    path.store.records["new"] = with_attributes(EMPTY_RECORD, {"country": "DE", "shoe_size": "44"})
    return path


def serve(
    path: RequestPath,
    catalog: Catalog,
    *attributes: str,
    consumes: list[EventType] | None = None,
    counts: list[EventType] | None = None,
) -> None:
    """Makes a version that takes these attributes the stable one."""
    version = ranking_version(7, catalog, *attributes, consumes=consumes, counts=counts)
    path.router.ready[7] = path.router.serving = version
    path.router.catalog_consumes = version.consumes


async def test_a_version_gets_types_attributes_surface_and_diversity_if_it_lists_them(
    path: RequestPath,
) -> None:
    path.store.records["u"] = with_attributes(path.store.records["u"], {"age": "30", "shoe_size": "44"})
    await path.page("u", surface="basket", diversity=0.3)
    [inputs] = path.scorer.calls
    assert inputs["history_types"].tolist() == [[0, 0, EventType.PURCHASE, EventType.CLICK]]
    assert inputs["user_features"].tolist() == [[0, feature_key("age", "30")]]
    assert inputs["surface"].tolist() == [[surface_key("basket")]]
    assert inputs["diversity"].tolist() == [[pytest.approx(0.3)]]
    assert {name: inputs[name].dtype.name for name in ADDED_INPUTS} == {
        "history_types": "int32",
        "user_features": "int64",
        "surface": "int64",
        "diversity": "float32",
    }


async def test_an_older_version_gets_what_it_lists_whatever_is_asked_for(
    path: RequestPath, catalog: Catalog
) -> None:
    path.router.ready[7] = path.router.serving = serving_version(7, catalog)
    page = await path.page("u", surface="basket", diversity=0.3)
    assert page.degraded is Degraded.NO
    assert path.scorer.calls[0].keys().isdisjoint(ADDED_INPUTS)


async def test_a_version_without_attributes_gets_one_empty_slot(path: RequestPath, catalog: Catalog) -> None:
    serve(path, catalog)
    await path.page("u")
    assert path.scorer.calls[0]["user_features"].tolist() == [[0]]


async def test_a_user_with_attributes_and_no_history_gets_a_page_of_the_model(path: RequestPath) -> None:
    page = await path.page("new")
    assert page.degraded is Degraded.NO
    assert path.scorer.calls[0]["user_features"].tolist() == [[feature_key("country", "DE"), 0]]
    assert not path.scorer.calls[0]["history_keys"].any()
    await path.batches.close()
    assert path.store.answers["new"].page_is_current


async def test_attributes_that_the_version_does_not_take_leave_a_cold_start(
    path: RequestPath, catalog: Catalog
) -> None:
    path.store.records["other"] = with_attributes(EMPTY_RECORD, {"shoe_size": "44"})
    assert (await path.page("other")).degraded is Degraded.COLD_START
    path.router.ready[7] = path.router.serving = serving_version(7, catalog)
    assert (await path.page("new")).degraded is Degraded.COLD_START
    assert path.scorer.calls == []


@pytest.mark.parametrize(
    ("consumes", "excluded"),
    [(None, {"1", "2"}), ([], set()), ([EventType.PURCHASE], {"1"}), ([EventType.LIKE], set())],
)
async def test_only_items_of_events_whose_type_consumes_are_excluded(
    path: RequestPath, catalog: Catalog, consumes: list[EventType] | None, excluded: set[str]
) -> None:
    serve(path, catalog, consumes=consumes)
    await path.page("u", excluded=(item_key("9"),))
    sent = set(path.scorer.calls[0]["exclude_keys"][0].tolist())
    assert sent == {0, item_key("9"), *map(item_key, excluded)}


async def test_one_consuming_event_with_an_item_is_enough(path: RequestPath, catalog: Catalog) -> None:
    serve(path, catalog, consumes=[EventType.CLICK])
    events = [Event("u", "1", kind, 9) for kind in (EventType.VIEW, EventType.CLICK, EventType.LIKE)]
    path.store.records["u"] = with_events(EMPTY_RECORD, events, 100).record
    await path.page("u")
    assert set(path.scorer.calls[0]["exclude_keys"][0].tolist()) == {0, item_key("1")}


async def test_events_that_do_not_count_push_none_that_do_out_of_the_history(
    path: RequestPath, catalog: Catalog
) -> None:
    serve(path, catalog, counts=[EventType.PURCHASE, EventType.CLICK])
    noise = [Event("u", str(n), EventType.VIEW, 10 + n) for n in range(9)]
    path.store.records["u"] = with_events(path.store.records["u"], noise, 100).record
    await path.page("u")
    [inputs] = path.scorer.calls
    assert inputs["history_keys"].tolist() == [[0, 0, item_key("1"), item_key("2")]]
    assert inputs["history_times"].tolist() == [[0, 0, 5, 6]]
    assert inputs["history_types"].tolist() == [[0, 0, EventType.PURCHASE, EventType.CLICK]]
    # They are not recommended again all the same: that is for `consumes` to say.
    assert {item_key(str(n)) for n in range(9)} < set(inputs["exclude_keys"][0].tolist())


async def test_a_user_whose_events_do_not_count_has_a_cold_start(path: RequestPath, catalog: Catalog) -> None:
    serve(path, catalog, counts=[EventType.LIKE])
    assert (await path.page("u")).degraded is Degraded.COLD_START
    serve(path, catalog, counts=[EventType.LIKE, EventType.CLICK])
    assert (await path.page("u")).degraded is Degraded.NO


async def test_a_vector_ages_by_the_events_that_count(path: RequestPath, catalog: Catalog) -> None:
    """One event counts and is old; another, of this second, does not: in a minute the vector is as good."""
    serve(path, catalog, counts=[EventType.PURCHASE])
    now = int(time.time())
    events = [Event("u", "1", EventType.PURCHASE, now - 10**6), Event("u", "2", EventType.VIEW, now - 100)]
    record = with_events(EMPTY_RECORD, events, 100).record
    answer = CachedAnswer(7, record.revision, now - 90, np.array([3, 4], np.float32), item_keys(["9"]), False)
    path.store.records["u"] = record._replace(answer=answer)
    await path.page("u")
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[1]]
    serve(path, catalog)
    await path.page("u")
    assert path.scorer.calls[1]["user_vector_fresh"].tolist() == [[0]]


async def test_a_fallback_page_holds_items_back_as_the_version_does(
    path: RequestPath, catalog: Catalog
) -> None:
    serve(path, catalog, consumes=[EventType.PURCHASE])
    path.scorer.error = ModelUnavailable("told to fail")
    page = await path.page("u")
    assert ids(page) == ["0", "2", "3"]


async def test_a_page_of_another_moment_neither_uses_nor_leaves_a_vector(path: RequestPath) -> None:
    record = path.store.records["u"]
    answer = CachedAnswer(
        7, record.revision, int(time.time()), np.array([3, 4], np.float32), item_keys(["9"]), False
    )
    path.store.records["u"] = record._replace(answer=answer)
    await path.page("u", time=1234)
    [inputs] = path.scorer.calls
    assert (inputs["request_time"].tolist(), inputs["user_vector_fresh"].tolist()) == ([[1234]], [[0]])
    await path.batches.close()
    assert path.store.answers == {}


async def test_in_a_batch_each_row_has_its_own_moment(path: RequestPath) -> None:
    before = int(time.time())
    await asyncio.gather(path.page("u"), path.page("u", time=1234))
    [inputs] = path.scorer.calls
    now, then = inputs["request_time"].ravel().tolist()
    assert before <= now <= time.time()
    assert then == 1234
    await path.batches.close()
    assert path.store.answers["u"].page_is_current


@pytest.mark.parametrize("asked", [{"surface": "basket"}, {"diversity": 0.3}])
async def test_a_page_of_a_surface_or_with_diversity_is_kept_for_when_the_model_is_away(
    path: RequestPath, asked: dict[str, object]
) -> None:
    await path.page("u", **asked)
    await path.batches.close()
    kept = path.store.answers["u"]
    assert (kept.vector.tolist(), kept.page_is_current) == ([0.5, 0.5], True)
    path.store.records["u"] = path.store.records["u"]._replace(answer=kept)
    path.scorer.error = ModelUnavailable("told to fail")
    away = await path.page("u")
    assert away.degraded is Degraded.MODEL_UNAVAILABLE
    assert [item_key(item) for item in ids(away)] == kept.page_keys[: len(ids(away))].tolist()


def test_the_gateway_fills_every_input_that_publishing_lets_through() -> None:
    assert {name: TRITON_NAMES[dtype] for name, dtype in INPUTS.items()} == FILLABLE_INPUTS
    assert fit._ADDED_INPUTS == ADDED_INPUTS
