"""A server that dies, hangs, is full, forgets its scripts, is set up wrongly or holds what is not ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from features.record import Event
from features.redis_address import parse
from features.redis_breaker import FAILURES, OPEN_S
from features.redis_keys import of_user
from features.redis_store import RedisStore
from features.schema import EventType, item_key
from features.store import FeatureStore, StoreFull, StoreUnavailable
from tests.valkey import Valkey, one_server

TIMEOUT_MS = 200
BUSY_S = 1.0
"""What a busy machine may take on top."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with one_server(tmp_path) as server:
        yield server


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisStore]:
    opened = RedisStore(parse(f"redis://{valkey.address}?timeout_ms={TIMEOUT_MS}"), history_cap=20)
    yield opened
    await opened.close()


def click(user: str, item: str = "x", time: int = 1) -> Event:
    return Event(user, item, EventType.CLICK, time)


async def keys_of(store: FeatureStore, user: str) -> list[int]:
    [record] = await store.read([user])
    keys: list[int] = record.keys.tolist()
    return keys


async def again_and_again(call: Callable[[], Awaitable[object]]) -> None:
    """Until the breaker has let it through and it succeeds."""
    deadline = time.monotonic() + 30
    while True:
        try:
            await call()
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def open_breaker(call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(FAILURES):
        with pytest.raises(StoreUnavailable):
            await call()


async def test_what_was_acknowledged_is_there_after_a_kill_and_the_store_comes_back_by_itself(
    store: RedisStore, valkey: Valkey
) -> None:
    await store.append([click("u")])
    valkey.kill()
    for call in (lambda: store.read(["u"]), lambda: store.append([click("u", "y")])):
        with pytest.raises(StoreUnavailable, match=f"RIPTIDE_STORE.*{valkey.address}"):
            await call()
    valkey.start()
    # Its scripts are gone, too.
    await again_and_again(lambda: store.append([click("u", "z", 2)]))
    assert await keys_of(store, "u") == [item_key("x"), item_key("z")]


async def test_a_store_can_be_opened_before_its_server_is_there(store: RedisStore, valkey: Valkey) -> None:
    valkey.kill()
    with pytest.raises(StoreUnavailable):
        await store.read(["u"])
    valkey.start()
    await again_and_again(lambda: store.read(["u"]))


async def test_a_server_that_hangs_is_not_waited_for_beyond_the_time_out_and_soon_not_at_all(
    store: RedisStore, valkey: Valkey
) -> None:
    await store.append([click("u"), click("v", "y")])
    valkey.hang()
    try:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=f"within {TIMEOUT_MS} ms"):
            await store.read(["u"])
        assert TIMEOUT_MS / 1000 <= time.monotonic() - started < TIMEOUT_MS / 1000 + BUSY_S
        await open_breaker(lambda: store.read(["u"]))
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await store.read(["u"])
        assert time.monotonic() - started < OPEN_S
    finally:
        valkey.wake()
    await again_and_again(lambda: store.read(["u"]))
    # No late reply answers another call.
    for _ in range(20):
        assert await keys_of(store, "v") == [item_key("y")]
        assert await keys_of(store, "u") == [item_key("x")]


async def test_many_calls_at_once_to_a_server_that_hangs_all_end_in_time(
    store: RedisStore, valkey: Valkey
) -> None:
    await store.read(["u"])
    valkey.hang()
    try:
        started = time.monotonic()
        ends = await asyncio.gather(*(store.read([f"u{n}"]) for n in range(200)), return_exceptions=True)
        assert all(isinstance(end, StoreUnavailable) for end in ends)
        assert time.monotonic() - started < TIMEOUT_MS / 1000 + BUSY_S
    finally:
        valkey.wake()


async def test_many_calls_at_once_share_a_few_connections(valkey: Valkey) -> None:
    store = RedisStore(parse(f"redis://{valkey.address}?timeout_ms=5000"), history_cap=20)
    await asyncio.gather(*(store.append([click(f"u{n}")]) for n in range(300)))
    clients = valkey.ask("INFO", "clients").decode()
    assert int(clients.split("connected_clients:")[1].split()[0]) <= 32 + 1  # and the one that asks
    await store.close()


async def test_a_call_that_its_caller_gives_up_spoils_no_other(store: RedisStore) -> None:
    await store.append([click("u"), click("v", "y")])
    for _ in range(50):
        given_up = [asyncio.create_task(store.read(["u"])) for _ in range(8)]
        await asyncio.sleep(0)
        for task in given_up[::2]:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert await keys_of(store, "v") == [item_key("y")]


async def test_scripts_that_a_server_has_forgotten_are_sent_anew(store: RedisStore, valkey: Valkey) -> None:
    await store.append([click("u")])
    valkey.ask("SCRIPT", "FLUSH")
    assert (await store.append([click("u"), click("u", "y", 2)])).recorded == 1
    valkey.ask("SCRIPT", "FLUSH")
    assert await store.control.replace_document("d", b"one", 0)
    assert await store.forget("u")


async def test_a_full_server_refuses_events_whole_but_still_forgets_and_obeys_operators(
    store: RedisStore, valkey: Valkey
) -> None:
    await store.append([click("u"), click("v")])
    valkey.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreFull, match="maxmemory"):
        await store.append([click("u", "y", 2), click("new")])
    with pytest.raises(StoreFull):
        await store.mark_loaded("data")
    assert await keys_of(store, "u") == [item_key("x")]
    assert await keys_of(store, "new") == []
    assert await store.control.replace_document("d", b"one", 0)
    await store.control.put_report("worker", b"figures")
    assert await store.forget("v")
    assert await store.excluded_users() == {"v"}
    valkey.ask("CONFIG", "SET", "maxmemory", "0")
    assert (await store.append([click("u", "y", 2), click("new")])).recorded == 2


async def test_a_record_of_another_format_reads_as_empty_is_not_overwritten_and_harms_no_neighbour(
    store: RedisStore, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    await store.append([click("v")])
    foreign = b"RU\x63\x00 of a later release"
    valkey.ask("SET", of_user("u", "u"), foreign)
    read = await store.read(["u", "v"])
    assert [record.keys.tolist() for record in read] == [[], [item_key("x")]]
    assert "reads as empty" in caplog.text
    with pytest.raises(StoreUnavailable, match="no known format"):
        await store.append([click("v", "y", 2), click("u"), click("w")])
    with pytest.raises(StoreUnavailable, match="no known format"):
        await store.set_attributes({"u": {"gender": "F"}})
    assert valkey.ask("GET", of_user("u", "u")) == foreign
    # All or none: not the others of that call either.
    assert await keys_of(store, "v") == [item_key("x")]
    assert await keys_of(store, "w") == []
    # Nor is it the server's fault: no breaker opens.
    for _ in range(FAILURES + 1):
        with pytest.raises(StoreUnavailable, match="no known format"):
            await store.append([click("u")])
    assert await keys_of(store, "v") == [item_key("x")]


async def test_two_processes_lose_no_event_of_a_user_whom_both_write(valkey: Valkey) -> None:
    stores = [
        RedisStore(parse(f"redis://{valkey.address}?timeout_ms=5000"), history_cap=400) for _ in range(2)
    ]
    await asyncio.gather(
        *(stores[n % 2].append([click("u", f"i{n}", 1 + n % 7)]) for n in range(300)),
    )
    assert len(await keys_of(stores[0], "u")) == 300
    for each in stores:
        await each.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], []),
        (["--appendonly", "no"], ["appendonly yes"]),
        (["--maxmemory-policy", "allkeys-lru"], ["set noeviction"]),
    ],
)
async def test_a_server_that_would_lose_what_was_acknowledged_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: list[str], says: list[str]
) -> None:
    with one_server(tmp_path, *options) as valkey:
        store = RedisStore(parse(f"redis://{valkey.address}?timeout_ms=5000"), history_cap=20)
        for _ in range(20):
            await store.read(["u"])
        await store.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == len(says)
    assert all(part in warning for part, warning in zip(says, warnings, strict=True))


async def test_a_write_that_too_few_replicas_have_is_not_acknowledged(valkey: Valkey, tmp_path: Path) -> None:
    store = RedisStore(parse(f"redis://{valkey.address}?timeout_ms=100&replicas=1"), history_cap=20)
    for call in (
        lambda: store.append([click("u")]),
        lambda: store.control.replace_document("d", b"one", 0),
        lambda: store.mark_loaded("data"),
    ):
        with pytest.raises(StoreUnavailable, match="of 1 replicas have confirmed: 0"):
            await call()
    with one_server(tmp_path, "--replicaof", "127.0.0.1", str(valkey.port)) as replica:
        await again_and_again(lambda: store.append([click("u"), click("u", "y", 2)]))
        assert replica.ask("GET", of_user("u", "u")) == valkey.ask("GET", of_user("u", "u"))
        # A repetition, in which all is known, waits for them as the first try did.
        changes: list[Callable[[RedisStore], Awaitable[object]]] = [
            lambda store: store.append([click("u", "z", 3)]),
            lambda store: store.set_attributes({"u": {"gender": "F"}}),
            lambda store: store.forget("v"),
        ]
        replica.hang()
        try:
            for change in (each for each in changes for _ in range(2)):
                # Each on a connection of its own, which has written nothing before.
                other = RedisStore(
                    parse(f"redis://{valkey.address}?timeout_ms=100&replicas=1"), history_cap=20
                )
                with pytest.raises(StoreUnavailable, match="have confirmed: 0"):
                    await change(other)
                await other.close()
        finally:
            replica.wake()
    await store.close()
