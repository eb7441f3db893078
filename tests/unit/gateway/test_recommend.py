"""The request path with a store and a scorer that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from features.catalog import Catalog
from features.record import CachedAnswer, UserRecord
from features.schema import item_key, item_keys
from gateway.answers import _MOST_BEING_KEPT
from gateway.errors import ModelUnavailable
from gateway.page import Degraded, Page
from gateway.wire import CatalogLines
from tests.unit.gateway.fakes import ANSWERED
from tests.unit.gateway.request_path import RequestPath, ids, shown, stages


@pytest.fixture
def path(catalog: Catalog) -> RequestPath:
    return RequestPath(catalog)


async def test_a_user_with_a_history_gets_the_answer_of_the_version_in_service(path: RequestPath) -> None:
    path.saw("u", "1")
    page = await path.page("u")
    assert (ids(page), page.version, page.degraded) == (["10", "11", "12"], 7, Degraded.NO)


async def test_concurrent_requests_share_one_read_and_one_call_of_the_model(path: RequestPath) -> None:
    for n in range(8):
        path.saw(f"u{n}", "1")
    path.scorer.gate.clear()
    first = asyncio.create_task(path.page("u0"))
    while not path.scorer.calls:
        await asyncio.sleep(0)
    others = [asyncio.create_task(path.page(f"u{n}")) for n in range(1, 8)]
    await asyncio.sleep(0)
    path.scorer.gate.set()
    await asyncio.gather(first, *others)
    assert [len(read) for read in path.store.reads] == [1, 7]
    assert [len(call["history_keys"]) for call in path.scorer.calls] == [1, 7]


async def test_what_the_model_gets_is_the_users_history_exclusions_and_filter(path: RequestPath) -> None:
    path.saw("u", "1", "2")
    await path.page("u", categories=("even",), excluded=(item_key("9"),))
    [inputs] = path.scorer.calls
    assert inputs["history_times"].tolist() == [[0, 0, 1, 2]]
    assert abs(inputs["request_time"][0, 0] - time.time()) < 60
    assert inputs["history_keys"].tolist() == [[0, 0, item_key("1"), item_key("2")]]
    assert set(inputs["exclude_keys"][0].tolist()) == {0, item_key("9"), item_key("1"), item_key("2")}
    assert inputs["allowed_categories"].tolist() == [[False, True, False]]
    await path.page("u", include_seen=True)
    assert not path.scorer.calls[1]["exclude_keys"].any()
    assert path.scorer.calls[1]["allowed_categories"].all()


async def test_everything_seen_and_asked_for_is_excluded_however_much_it_is(path: RequestPath) -> None:
    seen = [f"item {n}" for n in range(1000)]
    path.saw("heavy", "1", *seen)
    path.saw("light", "2")
    await path.page("heavy", excluded=(item_key("29"),))
    await path.page("light")
    heavy, light = (call["exclude_keys"] for call in path.scorer.calls)
    assert set(heavy[0].tolist()) == {0, *(item_key(item) for item in ("29", "1", *seen))}
    assert heavy.shape == (1, 1024)
    # A light user costs no more than a step.
    assert light.shape == (1, 64)


async def test_a_fresh_vector_of_this_version_is_sent_and_none_is_asked_for(path: RequestPath) -> None:
    record = path.saw("u", "1")
    answer = CachedAnswer(
        7, record.revision, int(time.time()), np.array([3, 4], np.float32), item_keys(["3"]), True
    )
    path.store.records["u"] = record._replace(answer=answer)
    await path.page("u")
    assert path.scorer.calls[0]["user_vector"].tolist() == [[3, 4]]
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[1]]
    assert path.scorer.asked[0]["vectors"] is False
    await path.batches.close()
    assert path.store.answers == {}


@pytest.mark.parametrize(
    ("newest", "computed", "fresh"),
    [
        (-1, -1, 0),
        (-1, 0, 1),
        (-100, -50, 0),
        (-100, -30, 1),
        (-100, -90, 0),
        (-86_400 * 30, -86_400 * 29, 0),
    ],
)
async def test_a_vector_is_used_until_the_last_event_has_become_twice_as_old(
    path: RequestPath, newest: int, computed: int, fresh: int
) -> None:
    now = int(time.time())
    record = path.saw("u", "1")._replace(times=np.array([now + newest]))
    answer = CachedAnswer(
        7, record.revision, now + computed, np.ones(2, np.float32), np.empty(0, np.int64), False
    )
    path.store.records["u"] = record._replace(answer=answer)
    await path.page("u")
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[fresh]]


@pytest.mark.parametrize(("version", "later"), [(6, 0), (7, -1)])
async def test_a_vector_of_another_version_or_an_older_history_is_not_used(
    path: RequestPath, version: int, later: int
) -> None:
    record = path.saw("u", "1")
    answer = CachedAnswer(
        version,
        record.revision + later,
        int(time.time()),
        np.ones(2, np.float32),
        np.empty(0, np.int64),
        False,
    )
    path.store.records["u"] = record._replace(answer=answer)
    await path.page("u")
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[0]]
    assert path.scorer.asked[0]["vectors"] is True


async def test_a_new_vector_and_a_plain_page_are_kept_a_filtered_page_is_not(path: RequestPath) -> None:
    record = path.saw("plain", "1")
    path.saw("filtered", "1")
    await path.page("plain")
    await path.page("filtered", categories=("even",))
    await path.batches.close()
    kept = path.store.answers["plain"]
    assert (kept.version, kept.revision, kept.vector.tolist()) == (7, record.revision, [0.5, 0.5])
    assert len(kept.page_keys) == ANSWERED
    assert len(path.store.answers["filtered"].page_keys) == 0


async def test_reasons_are_asked_for_only_if_somebody_wants_them(path: RequestPath) -> None:
    path.saw("u", "1")
    silent, explained = await path.page("u"), await path.page("u", explain=True)
    assert [asked["reasons"] for asked in path.scorer.asked] == [False, True]
    assert [item.HasField("reason") for item in shown(silent)] == [False] * 3
    assert [item.reason.item_id for item in shown(explained)] == ["1"] * 3


@pytest.mark.parametrize("history", [(), ("gone", "also gone")])
async def test_nothing_known_of_a_user_is_a_cold_start_without_a_call_of_the_model(
    path: RequestPath, history: tuple[str, ...]
) -> None:
    path.saw("u", *history)
    page = await path.page("u")
    assert (ids(page), page.degraded) == (["0", "1", "2"], Degraded.COLD_START)
    assert path.scorer.calls == []


@pytest.mark.parametrize(("version", "behind", "known"), [(7, 0, True), (6, 0, False), (7, 1, False)])
async def test_a_current_vector_of_the_version_says_that_it_knows_the_user_and_no_other_does(
    path: RequestPath, version: int, behind: int, known: bool
) -> None:
    record = path.saw("u", "unknown")
    vector, no_page = np.zeros(2, np.float32), np.empty(0, np.int64)
    now = int(time.time())
    answer = CachedAnswer(version, record.revision - behind, now, vector, no_page, page_is_current=False)
    path.store.records["u"] = record._replace(answer=answer)
    page = await path.page("u")
    assert (page.degraded, len(path.scorer.calls)) == (
        (Degraded.NO, 1) if known else (Degraded.COLD_START, 0)
    )


async def test_a_model_that_fails_is_replaced_by_the_last_page_without_what_was_seen_since(
    path: RequestPath,
) -> None:
    record = path.saw("u", "21")
    page_keys = item_keys(["20", "21", "22"])
    answer = CachedAnswer(6, 0, 1, np.ones(2, np.float32), page_keys, True)
    path.store.records["u"] = record._replace(answer=answer)
    path.scorer.error = ModelUnavailable("told to fail")
    page = await path.page("u")
    assert (ids(page), page.degraded) == (["20", "22", "0"], Degraded.MODEL_UNAVAILABLE)


async def test_no_version_in_service_is_answered_from_the_catalogue_at_hand(path: RequestPath) -> None:
    path.saw("u", "0")
    path.router.serving = None
    page = await path.page("u")
    assert (ids(page), page.degraded, page.version) == (["1", "2", "3"], Degraded.MODEL_UNAVAILABLE, 7)


async def test_a_model_that_hangs_is_not_waited_for_beyond_the_time_given(path: RequestPath) -> None:
    path.saw("u", "0")
    path.scorer.gate.clear()
    began = time.monotonic()
    page = await path.page("u", timeout_s=0.05)
    assert page.degraded is Degraded.MODEL_UNAVAILABLE
    assert time.monotonic() - began < 2
    path.scorer.gate.set()
    await path.batches.close()


async def test_a_defect_of_one_batch_is_answered_with_fallback_pages(path: RequestPath) -> None:
    path.saw("u", "0")
    path.scorer.error = KeyError("a defect")
    page = await path.page("u")
    assert (ids(page), page.degraded) == (["1", "2", "3"], Degraded.MODEL_UNAVAILABLE)


async def test_pages_that_take_long_let_those_go_first_who_have_theirs(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = CatalogLines.scored, 0

    def slowly(*of: Any) -> bytes:
        time.sleep(0.002)
        return made(*of)

    async def asked(user: str) -> tuple[int, Page]:
        nonlocal done
        page = await path.page(user)
        done += 1
        return done, page

    monkeypatch.setattr(CatalogLines, "scored", slowly)
    for n in range(4):
        path.saw(f"u{n}", "1")
    began = time.perf_counter()
    calls = [asyncio.create_task(asked(f"u{n}")) for n in range(4)]
    await calls[0]
    assert path.figures.flush()[7].calls >= 1
    assert not calls[3].done()
    pages = await asyncio.gather(*calls)
    took_ms = (time.perf_counter() - began) * 1000
    assert [number for number, _ in pages] == [1, 2, 3, 4]
    waited = [stages(page).page for _, page in pages]
    assert waited == sorted(waited)
    assert 8 <= waited[3] <= took_ms
    latency = path.figures.flush()[7].latency
    assert latency.total == 4
    assert latency.quantile(1.0) >= waited[3]


async def test_a_page_that_cannot_be_made_is_a_fallback_page_and_its_neighbours_get_theirs(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("first", "second", "third"):
        path.saw(user, "1")
    made = CatalogLines.scored

    def broken(lines: CatalogLines, keys: Sequence[int], *rest: Any) -> bytes:
        if len(keys) == 2:
            raise RecursionError("an item that cannot be read")
        return made(lines, keys, *rest)

    monkeypatch.setattr(CatalogLines, "scored", broken)
    asked = zip(("first", "second", "third"), (3, 2, 3), strict=True)
    pages = await asyncio.gather(*(path.page(user, limit=limit) for user, limit in asked))
    assert [len(read) for read in path.store.reads] == [3, 1]
    assert [page.degraded for page in pages] == [Degraded.NO, Degraded.MODEL_UNAVAILABLE, Degraded.NO]
    assert ids(pages[0]) == ids(pages[2]) == ["10", "11", "12"]
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.errors, figures.degraded) == (3, 1, 1)


async def test_a_category_that_the_version_lost_meanwhile_matches_nothing_and_fails_nobody(
    path: RequestPath,
) -> None:
    path.saw("u", "1")
    page = await path.page("u", categories=("gone",))
    assert page.degraded is Degraded.NO
    assert not path.scorer.calls[0]["allowed_categories"].any()


async def test_a_store_that_fails_gives_popular_items_and_says_so(path: RequestPath) -> None:
    path.store.fails = True
    page = await path.page("u")
    assert (ids(page), page.degraded) == (["0", "1", "2"], Degraded.STORE_UNAVAILABLE)


async def test_stage_times_are_those_of_the_stages(path: RequestPath) -> None:
    path.saw("u", "1")
    began = time.perf_counter()
    said = stages(await path.page("u"))
    whole_ms = (time.perf_counter() - began) * 1000
    times = (said.queue, said.features, said.model, said.page)
    assert min(times) > 0
    assert sum(times) <= said.total <= whole_ms


async def test_a_fallback_page_says_what_it_waited_for_and_how_long_it_took_to_make(
    path: RequestPath,
) -> None:
    path.saw("u", "1")
    path.scorer.error = ModelUnavailable("told to fail")
    for said in (stages(await path.page("u")), stages(await path.page("nobody"))):
        assert min(said.page, said.model + said.features) > 0
        assert said.page < said.total


async def together(path: RequestPath, *requests: tuple[str, float, dict[str, Any]]) -> list[Page]:
    """Pages of requests that share one batch: all of them come before the first turn of the event loop."""
    return await asyncio.gather(
        *(path.page(user, timeout_s=timeout_s, **fields) for user, timeout_s, fields in requests)
    )


async def test_a_batch_may_take_as_long_as_its_most_patient_caller(path: RequestPath) -> None:
    path.saw("u", "1")
    await together(path, ("u", 1, {}), ("u", 9, {}), ("u", 2, {}))
    [asked] = path.scorer.asked
    assert 8 < asked["timeout_s"] <= 9


async def test_in_a_batch_each_caller_gets_the_reasons_it_asked_for(path: RequestPath) -> None:
    path.saw("u", "1")
    pages = await together(path, ("u", 5, {}), ("u", 5, {"explain": True}), ("u", 5, {}))
    assert [asked["reasons"] for asked in path.scorer.asked] == [True]
    assert [all(item.HasField("reason") for item in shown(page)) for page in pages] == [False, True, False]


@pytest.mark.parametrize("plain_first", [True, False])
async def test_a_filtered_call_does_not_wipe_the_page_of_the_plain_one_beside_it(
    path: RequestPath, plain_first: bool
) -> None:
    path.saw("u", "1")
    both: list[tuple[str, float, dict[str, Any]]] = [("u", 5, {}), ("u", 5, {"categories": ("even",)})]
    await together(path, *(both if plain_first else reversed(both)))
    await path.batches.close()
    assert len(path.store.answers["u"].page_keys) == ANSWERED
    assert path.store.answers["u"].page_is_current


async def test_a_plain_page_is_kept_though_a_filtered_call_came_first(path: RequestPath) -> None:
    record = path.saw("u", "1")
    older = CachedAnswer(
        7, record.revision, int(time.time()), np.array([3, 4], np.float32), item_keys(["9"]), False
    )
    path.store.records["u"] = record._replace(answer=older)
    await path.page("u", categories=("even",))
    await path.batches.close()
    assert path.store.answers == {}
    await path.page("u")
    await path.batches.close()
    kept = path.store.answers["u"]
    assert (kept.vector.tolist(), len(kept.page_keys), kept.page_is_current) == ([3, 4], ANSWERED, True)


async def test_while_the_disk_hangs_few_answers_wait_for_it_and_pages_still_come(path: RequestPath) -> None:
    disk = asyncio.Event()
    begun: list[Mapping[str, CachedAnswer]] = []

    async def hang(answers: Mapping[str, CachedAnswer]) -> None:
        begun.append(answers)
        await disk.wait()

    path.store.put_answers = hang  # type: ignore[method-assign]  # told to hang
    for n in range(4 * _MOST_BEING_KEPT):
        path.saw(f"u{n}", "1")
        assert (await path.page(f"u{n}")).degraded is Degraded.NO
    assert len(begun) == _MOST_BEING_KEPT
    disk.set()
    await path.batches.close()
    await path.page("u0")
    await path.batches.close()
    assert len(begun) == _MOST_BEING_KEPT + 1


async def test_a_store_that_hangs_is_not_waited_for_beyond_the_time_given(path: RequestPath) -> None:
    async def hang(user_ids: Sequence[str]) -> list[UserRecord]:
        await asyncio.Event().wait()
        return []

    path.store.read = hang  # type: ignore[method-assign]  # told to hang
    page = await asyncio.wait_for(path.page("u", timeout_s=0.1), 5)
    assert page.degraded is Degraded.STORE_UNAVAILABLE
    path.router.serving = None
    page = await asyncio.wait_for(path.page("u", timeout_s=0.1), 5)
    assert page.degraded is Degraded.STORE_UNAVAILABLE
