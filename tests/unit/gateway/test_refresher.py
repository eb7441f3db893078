from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from features.catalog import Catalog
from features.record import Event
from features.schema import EventType, item_key
from gateway import refresher as module
from gateway.errors import ModelUnavailable, VersionGone
from tests.unit.gateway.fakes import encoding
from tests.unit.gateway.request_path import RequestPath


@pytest.fixture
async def path(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RequestPath]:
    """A request path whose refresher runs; a failure makes it pause only briefly."""
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    path = RequestPath(catalog)
    path.store.keeps = True
    running = asyncio.create_task(path.refresher.run_for_good())
    yield path
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until_quiet(path: RequestPath) -> None:
    """Returns when nobody waits and nobody rests any more."""
    async with asyncio.timeout(10):
        while not path.refresher.idle:
            await asyncio.sleep(0.005)


def vector_of(path: RequestPath, user: str) -> tuple[int, list[float]] | None:
    answer = path.store.records[user].answer
    return (answer.version, answer.vector.tolist()) if answer is not None else None


async def test_a_noted_user_has_a_vector_of_the_whole_history_soon(path: RequestPath) -> None:
    record = path.saw("u", "1", "2")
    path.refresher.note(["u"])
    await until_quiet(path)
    answer = path.store.records["u"].answer
    assert answer is not None
    assert answer.vector.tolist() == encoding(7, [item_key("1"), item_key("2")]).tolist()
    assert (answer.version, answer.revision, answer.behind_since) == (7, record.revision, 0)
    assert abs(answer.computed_at - time.time()) < 60


async def test_the_encoder_of_the_users_cohort_is_asked(path: RequestPath) -> None:
    path.saw("c", "1")
    path.router.cohorts["c"] = (8, "canary")
    path.refresher.note(["c"])
    await until_quiet(path)
    assert vector_of(path, "c") == (8, encoding(8, [item_key("1")]).tolist())


async def test_a_burst_of_ten_events_costs_two_encodings(path: RequestPath) -> None:
    for n in range(10):
        await path.store.append([Event("u", str(n), EventType.CLICK, n + 1)])
        path.refresher.note(["u"])
        await asyncio.sleep(0.002)
    await until_quiet(path)
    assert 1 <= len(path.scorer.encoded) <= 2
    newest = [item_key(str(n)) for n in range(6, 10)]  # the version reads four
    assert vector_of(path, "u") == (7, encoding(7, newest).tolist())


async def test_an_event_that_comes_while_its_user_is_encoded_is_covered_by_the_next_encoding(
    path: RequestPath,
) -> None:
    path.saw("u", "1")
    path.scorer.encoder_gate.clear()
    path.refresher.note(["u"])
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    await path.store.append([Event("u", "2", EventType.CLICK, 5)])
    path.refresher.note(["u"])
    path.scorer.encoder_gate.set()
    await until_quiet(path)
    assert vector_of(path, "u") == (7, encoding(7, [item_key("1"), item_key("2")]).tolist())


async def test_users_with_a_current_vector_and_unknown_ones_are_not_encoded(path: RequestPath) -> None:
    path.saw("u", "1")
    path.refresher.note(["u"])
    await until_quiet(path)
    path.refresher.note(["u", "nobody"])
    await until_quiet(path)
    assert len(path.scorer.encoded) == 1


async def order_of_encoding(path: RequestPath) -> list[str]:
    name_of = {item_key(name): name for name in map(str, range(30))}
    return [name_of[history[0]] for _, histories in path.scorer.encoded for history in histories]


async def test_those_whom_a_read_waits_for_or_else_the_newest_are_served_in_turn_with_the_longest_waiting(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AIM_S", 0.0)  # one row a call
    for n in range(5):
        path.saw(str(n), str(n))
    path.scorer.encoder_gate.clear()
    path.refresher.note(["0"])
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    for n in range(1, 5):
        path.refresher.note([str(n)])
    reading = asyncio.create_task(path.refresher.encoded("2", path.router.ready[7], 5))
    await asyncio.sleep(0)
    path.scorer.encoder_gate.set()
    await reading
    await until_quiet(path)
    assert await order_of_encoding(path) == ["0", "2", "1", "4", "3"]


async def test_those_of_whom_nothing_came_for_longest_fall_out_of_a_full_queue(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path.refresher._queue, "_most", 3)
    for n in range(6):
        path.saw(str(n), str(n))
    path.scorer.encoder_gate.clear()
    path.refresher.note(["0"])
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    path.refresher.note(["1", "2", "3", "1", "4", "5"])
    assert path.refresher.backlog == 3
    path.scorer.encoder_gate.set()
    await until_quiet(path)
    assert sorted(await order_of_encoding(path)) == ["0", "1", "4", "5"]


async def test_a_slow_encoder_is_given_few_rows_and_a_quick_one_many(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(29):
        path.saw(str(n), str(n))
    for row_s, most in ((0.01, 2), (0.0001, 64)):
        path.scorer.encoded.clear()
        monkeypatch.setattr(path.refresher, "_row_s", {7: row_s})
        monkeypatch.setattr(path.refresher, "_learn", lambda version, row_s: None)
        path.store.records = {user: path.saw(user, user) for user in list(path.store.records)}
        path.refresher.note(list(path.store.records))
        await until_quiet(path)
        sizes = [len(histories) for _, histories in path.scorer.encoded]
        assert sum(sizes) == 29
        assert max(sizes) == min(most, 29)


async def test_without_an_encoder_reads_are_told_so_at_once_until_it_may_be_back(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.saw("u", "1")
    version = path.router.ready[7]
    path.scorer.encoder_error = VersionGone("unknown model")
    with pytest.raises(VersionGone):
        await path.refresher.encoded("u", version, 5)
    assert not path.refresher.encodes(version)
    with pytest.raises(VersionGone):
        await path.refresher.encoded("u", version, 5)
    assert len(path.scorer.encoded) == 1
    monkeypatch.setattr(module, "_GONE_S", -1.0)
    path.scorer.encoder_error = None
    await path.refresher.encoded("u", version, 5)
    assert vector_of(path, "u") is not None


async def test_users_are_kept_until_there_is_an_encoder(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As far apart as they are: an early try would find it gone still, and would be the last.
    monkeypatch.setattr(module, "_TRY_AGAIN_S", 0.05 * module._TRY_AGAIN_S / module._GONE_S)
    monkeypatch.setattr(module, "_GONE_S", 0.05)
    for n in range(5):
        path.saw(str(n), str(n))
    path.scorer.encoder_error = VersionGone("unknown model")
    path.refresher.note(str(n) for n in range(5))
    async with asyncio.timeout(10):
        while len(path.scorer.encoded) < 3:  # it is tried again and again, with one user each time
            await asyncio.sleep(0.005)
    assert all(len(histories) == 1 for _, histories in path.scorer.encoded)
    path.scorer.encoder_error = None
    async with asyncio.timeout(10):
        while not all(vector_of(path, str(n)) for n in range(5)):
            await asyncio.sleep(0.005)


async def test_a_read_waits_no_longer_than_it_may(path: RequestPath) -> None:
    path.saw("u", "1")
    path.scorer.encoder_gate.clear()
    with pytest.raises(ModelUnavailable):
        await path.refresher.encoded("u", path.router.ready[7], 0.01)
    path.scorer.encoder_gate.set()
    await until_quiet(path)
    assert vector_of(path, "u") is not None


async def test_a_store_that_fails_ends_nothing(path: RequestPath) -> None:
    path.saw("u", "1")
    path.store.fails = True
    with pytest.raises(ModelUnavailable):
        await path.refresher.encoded("u", path.router.ready[7], 5)
    path.store.fails = False
    path.refresher.note(["u"])
    await until_quiet(path)
    assert vector_of(path, "u") is not None


async def test_a_user_who_is_forgotten_while_being_encoded_stays_forgotten(path: RequestPath) -> None:
    path.saw("u", "1")
    path.scorer.encoder_gate.clear()
    path.refresher.note(["u"])
    while not path.scorer.encoded:
        await asyncio.sleep(0)
    path.refresher.forget("u")
    await path.store.forget("u")
    await path.store.append([Event("u", "9", EventType.CLICK, 9)])
    path.scorer.encoder_gate.set()
    await until_quiet(path)
    assert vector_of(path, "u") is None


async def test_no_more_wait_than_the_slowest_encoder_that_there_is_takes_in_half_a_minute(
    catalog: Catalog,
) -> None:
    path = RequestPath(catalog)
    users = [f"u{n}" for n in range(200)]
    path.refresher._learn(6, 5.0)  # of a version that goes
    path.refresher.note(users)
    assert path.refresher.backlog == 64
    path.refresher._learn(8, 0.3)
    path.refresher._learn(7, 0.0001)
    path.refresher.note(users)
    assert path.refresher.backlog == 100
    path.refresher._learn(8, 0.0001)
    for _ in range(40):
        path.refresher._learn(8, 0.0001)
    path.refresher.note(users)
    assert path.refresher.backlog == 200
