"""Requests to a version that lets user vectors lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from features.catalog import Catalog
from features.record import CachedAnswer, Event
from features.schema import EventType, item_key
from gateway import refresher
from gateway.errors import ModelUnavailable, VersionGone
from gateway.page import Degraded
from gateway.vectors import Vector
from tests.unit.gateway.fakes import encoding
from tests.unit.gateway.request_path import RequestPath, ids, stages


@pytest.fixture
async def path(catalog: Catalog) -> AsyncIterator[RequestPath]:
    """Versions that let vectors lag by 1,000 seconds, and a refresher that runs."""
    path = RequestPath(catalog)
    path.store.keeps = True
    path.router.ready = {n: replace(v, max_lag_s=1000.0) for n, v in path.router.ready.items()}
    path.router.serving = path.router.ready[7]
    running = asyncio.create_task(path.refresher.run_for_good())
    yield path
    path.scorer.encoder_gate.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await path.batches.close()


def encoded(path: RequestPath, user: str, *, ago_s: int, version: int = 7) -> list[float]:
    """Gives a user a vector that was computed so long ago, and an event since; the vector."""
    record = path.store.records[user]
    now = time.time_ns()
    vector = np.array([version, 0.25], np.float32)
    answer = CachedAnswer(
        version,
        record.revision,
        now // 10**9,
        vector,
        np.empty(0, np.int64),
        page_is_current=False,
        behind_since=now - ago_s * 10**9,
    )
    path.store.records[user] = record._replace(revision=max(record.revision + 1, now), answer=answer)
    return vector.tolist()


async def test_a_vector_that_lags_by_no_more_than_it_may_is_used_and_refreshed_meanwhile(
    path: RequestPath,
) -> None:
    path.saw("u", "1", "2")
    vector = encoded(path, "u", ago_s=900)
    page = await path.page("u")
    [inputs] = path.scorer.calls
    assert page.degraded is Degraded.NO
    assert (inputs["user_vector_fresh"].tolist(), inputs["user_vector"].tolist()) == ([[1]], [vector])
    assert item_key("2") in inputs["exclude_keys"][0]
    async with asyncio.timeout(5):
        while path.store.records["u"].fresh_answer is None:
            await asyncio.sleep(0.005)
    answer = path.store.records["u"].fresh_answer
    assert answer is not None
    assert answer.vector.tolist() == encoding(7, [item_key("1"), item_key("2")]).tolist()


async def test_one_that_lags_by_more_is_waited_for(path: RequestPath) -> None:
    path.saw("u", "1")
    encoded(path, "u", ago_s=1100)
    page = await path.page("u")
    [inputs] = path.scorer.calls
    assert page.degraded is Degraded.NO
    assert inputs["user_vector_fresh"].tolist() == [[1]]
    assert inputs["user_vector"].tolist() == [encoding(7, [item_key("1")]).tolist()]


async def test_a_vector_that_was_waited_for_serves_though_a_newer_versions_took_its_place(
    path: RequestPath,
) -> None:
    record = path.saw("u", "1")
    path.scorer.encoder_gate.clear()
    reading = asyncio.create_task(path.page("u"))
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    newer = CachedAnswer(
        8, record.revision, 2**40, np.ones(2, np.float32), np.empty(0, np.int64), page_is_current=False
    )
    await path.store.put_answers({"u": newer})
    path.scorer.encoder_gate.set()
    page = await reading
    assert (page.version, page.degraded) == (7, Degraded.NO)
    assert path.scorer.calls[0]["user_vector"].tolist() == [encoding(7, [item_key("1")]).tolist()]
    kept = path.store.records["u"].answer
    assert kept is not None
    assert kept.version == 8


async def test_who_waits_for_the_encoder_holds_up_nobody(path: RequestPath) -> None:
    path.saw("slow", "1")
    path.saw("quick", "2")
    encoded(path, "quick", ago_s=1)
    path.scorer.encoder_gate.clear()
    slow = asyncio.create_task(path.page("slow"))
    quick = await path.page("quick")
    assert quick.degraded is Degraded.NO
    assert not slow.done()
    path.scorer.encoder_gate.set()
    assert (await slow).degraded is Degraded.NO


async def test_who_waits_for_the_encoder_does_not_share_the_failure_of_the_others(path: RequestPath) -> None:
    path.saw("slow", "1")
    path.saw("quick", "2")
    encoded(path, "quick", ago_s=1)
    path.scorer.encoder_gate.clear()
    path.scorer.error = ModelUnavailable("told to fail")
    slow = asyncio.create_task(path.page("slow"))
    quick = await path.page("quick")
    assert quick.degraded is Degraded.MODEL_UNAVAILABLE
    path.scorer.error = None
    path.scorer.encoder_gate.set()
    assert (await slow).degraded is Degraded.NO


async def test_when_the_encoder_does_not_follow_an_older_vector_serves_and_the_page_says_so(
    path: RequestPath,
) -> None:
    path.saw("u", "1", "2")
    vector = encoded(path, "u", ago_s=1100)
    path.scorer.encoder_gate.clear()
    page = await path.page("u", timeout_s=0.1)
    [inputs] = path.scorer.calls
    assert page.degraded is Degraded.STALE_VECTOR
    assert ids(page) == ["10", "11", "12"]
    assert inputs["user_vector"].tolist() == [vector]
    assert item_key("2") in inputs["exclude_keys"][0]


async def test_where_too_many_wait_already_nobody_else_waits(path: RequestPath) -> None:
    path.saw("u", "1")
    path.saw("new", "1")
    encoded(path, "u", ago_s=1100)
    path.refresher._row_s[7] = 1.0
    page = await path.page("u")
    assert page.degraded is Degraded.STALE_VECTOR
    assert stages(page).queue < 1000
    path.refresher._row_s[7] = 10.0
    assert (await path.page("new")).degraded is Degraded.MODEL_UNAVAILABLE
    # Both are encoded as soon as may be.
    async with asyncio.timeout(5):
        while not all(path.store.records[user].fresh_answer for user in ("u", "new")):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("version", [None, 8])
async def test_without_a_vector_of_the_version_the_page_is_a_fallback(
    path: RequestPath, version: int | None
) -> None:
    path.saw("u", "1")
    if version is not None:
        encoded(path, "u", ago_s=1, version=version)
    path.scorer.encoder_gate.clear()
    page = await path.page("u", timeout_s=0.1)
    assert page.degraded is Degraded.MODEL_UNAVAILABLE
    assert path.scorer.calls == []


async def test_without_an_encoder_the_row_is_encoded_with_the_request(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.saw("u", "1")
    path.scorer.encoder_error = VersionGone("unknown model")
    monkeypatch.setattr(refresher, "_GONE_S", 1000.0)
    for _ in range(2):
        path.saw("u", "1")
        page = await path.page("u")
        assert page.degraded is Degraded.NO
        assert path.scorer.calls[-1]["user_vector_fresh"].tolist() == [[0]]
    assert len(path.scorer.encoded) == 1


async def test_without_an_encoder_few_rows_are_encoded_with_a_batch_and_older_vectors_serve(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher, "_GONE_S", 1000.0)
    path.refresher._gone[7] = time.monotonic()
    for n in range(6):
        path.saw(f"new {n}", "1")
    path.saw("old", "1")
    vector = encoded(path, "old", ago_s=1100)
    pages = await asyncio.gather(*(path.page(user) for user in ["old", *(f"new {n}" for n in range(6))]))
    [inputs] = path.scorer.calls
    assert inputs["user_vector_fresh"][:, 0].tolist() == [1, 0, 0]
    assert inputs["user_vector"][0].tolist() == vector
    reasons = [page.degraded for page in pages]
    assert reasons[0] is Degraded.STALE_VECTOR
    assert sorted(reason.value for reason in reasons[1:]) == ["MODEL_UNAVAILABLE"] * 4 + ["UNSPECIFIED"] * 2
    # Whoever judges the version sees a batch that failed some of its calls.
    assert path.figures.flush()[7].failed_batches == 1


async def test_what_an_operator_pins_is_encoded_with_the_request_and_leaves_nothing(
    path: RequestPath,
) -> None:
    path.saw("u", "1")
    page = await path.page("u", pinned=8)
    assert (page.version, page.degraded) == (8, Degraded.NO)
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[0]]
    assert path.scorer.encoded == []
    assert path.store.records["u"].answer is None


async def test_a_page_of_another_moment_is_encoded_with_the_request(path: RequestPath) -> None:
    path.saw("u", "1")
    encoded(path, "u", ago_s=1)
    await path.page("u", time=1_000_000)
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[0]]
    assert path.scorer.encoded == []


async def test_an_event_recorded_while_a_read_waits_is_in_the_page_that_it_gets(path: RequestPath) -> None:
    path.saw("u", "1")
    path.scorer.encoder_gate.clear()
    reading = asyncio.create_task(path.page("u"))
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    await path.store.append([Event("u", "2", EventType.CLICK, 5)])
    path.scorer.encoder_gate.set()
    await reading
    assert item_key("2") in path.scorer.calls[0]["exclude_keys"][0]
    assert item_key("2") in path.scorer.calls[0]["history_keys"][0]


async def test_pages_of_current_vectors_are_counted_with_their_times_and_stale_ones_are_not(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, list[float], list[float]]] = []

    def count(version: int, queue_ms: Sequence[float], page_ms: Sequence[float]) -> None:
        counted.append((version, list(queue_ms), list(page_ms)))

    monkeypatch.setattr(path.metrics, "stages", count)
    path.scorer.encoder_error = ModelUnavailable("told to fail")
    for user, ago_s in (("current", 900), ("stale", 2000)):
        path.saw(user, "1", "2")
        encoded(path, user, ago_s=ago_s)
    found = await asyncio.gather(path.page("current"), path.page("stale"))
    assert [page.degraded for page in found] == [Degraded.NO, Degraded.STALE_VECTOR]
    said = stages(found[0])
    [(version, [queue_ms], [page_ms])] = [each for each in counted if each[1]]
    assert (version, queue_ms, page_ms) == (7, pytest.approx(said.queue), pytest.approx(said.page))
    assert queue_ms != page_ms


async def test_of_a_users_two_calls_in_a_batch_each_says_of_its_own_vector_whether_it_is_stale(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.saw("u", "1", "2")
    encoded(path, "u", ago_s=900)
    answer = path.store.records["u"].answer
    found = iter(
        [
            Vector(answer, behind=True, due=True, stale=True),
            Vector(answer, behind=True, due=True, stale=False),
        ]
    )
    monkeypatch.setattr(path.batches.vectors, "choose", lambda *_: next(found))
    pages = await asyncio.gather(path.page("u"), path.page("u"))
    assert [len(read) for read in path.store.reads[:1]] == [2]
    assert [page.degraded for page in pages] == [Degraded.STALE_VECTOR, Degraded.NO]


@pytest.mark.parametrize(("older_s", "refreshed"), [(400, False), (600, True)])
async def test_a_vector_that_time_alone_has_outdated_is_refreshed_after_half_of_what_it_may_lag(
    path: RequestPath, older_s: int, refreshed: bool
) -> None:
    now = int(time.time())
    record = path.saw("u", "1", "2")
    # Computed a second after the last event: outdated by age from two seconds later on.
    record = record._replace(times=np.array([now - older_s - 4, now - older_s - 3]))
    no_page = np.empty(0, np.int64)
    answer = CachedAnswer(
        7, record.revision, now - older_s - 2, np.array([7, 0.25], np.float32), no_page, page_is_current=True
    )
    path.store.records["u"] = record._replace(answer=answer)
    page = await path.page("u")
    assert page.degraded is Degraded.NO
    assert path.scorer.calls[0]["user_vector_fresh"].tolist() == [[1]]
    async with asyncio.timeout(5):
        while not path.refresher.idle:
            await asyncio.sleep(0.005)
    assert [version for version, _ in path.scorer.encoded] == [7] * refreshed


async def test_a_pinned_call_has_no_vector_refreshed(path: RequestPath) -> None:
    path.saw("u", "1", "2")
    encoded(path, "u", ago_s=900)
    await path.page("u", pinned=7)
    assert path.refresher.idle
    assert path.scorer.encoded == []
