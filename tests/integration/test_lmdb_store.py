"""The embedded store between processes, and when they are killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import lmdb
import pytest

from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from features.store import StoreFull, StoreUnavailable

CAP = 100_000
MAP_BYTES = 256 << 20

WRITER = """
import asyncio, sys
from pathlib import Path
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType

async def main(folder, user, count):
    store = LmdbStore(Path(folder), history_cap=100_000, map_bytes=256 << 20)
    for n in range(1, int(count) + 1):
        await store.append([Event(user, f"item {n}", EventType.CLICK, n)])
        print(n, flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""

READER = """
import sys, lmdb
txn = lmdb.open(sys.argv[1], max_dbs=2, max_readers=512).begin()
print("reading", flush=True)
sys.stdin.read()
"""


def program(source: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


async def test_a_writer_killed_at_any_moment_loses_nothing_that_was_acknowledged(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    acknowledged = 0
    for round_, lines in enumerate((1, 17, 60)):
        writer = program(WRITER, str(tmp_path), f"user {round_}", "100000")
        started.append(writer)
        assert writer.stdout is not None
        for _ in range(lines):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])

        store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
        [record] = await store.read([f"user {round_}"])
        assert len(record.keys) >= acknowledged >= lines
        # One more may have been committed before its acknowledgement was printed.
        assert len(record.keys) <= acknowledged + 1
        # The killed writer's lock does not stand in the way of the next write.
        await store.append([Event("after", f"{round_}", EventType.CLICK, 1)])
        await store.close()


async def test_two_processes_write_the_same_user_without_losing_events(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    started += [program(WRITER, str(tmp_path), "shared", "150") for _ in range(2)]
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    for n in range(1, 151):
        await store.append([Event("shared", f"mine {n}", EventType.CLICK, n)])
    for process in started:
        assert process.wait(60) == 0
    [record] = await store.read(["shared"])
    # Both writers wrote the same 150 events, this process 150 others.
    assert len(record.keys) == 300
    await store.close()


async def test_the_slot_of_a_reader_that_was_killed_is_freed_at_the_next_opening(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    await store.append([Event("u", "x", EventType.CLICK, 1)])
    await store.close()
    # The living one keeps the table of readers from being made anew.
    living, killed = program(READER, str(tmp_path)), program(READER, str(tmp_path))
    started += [living, killed]
    for reader in started:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
    killed.kill()
    killed.wait()

    def slots() -> str:
        with lmdb.open(str(tmp_path), max_dbs=2, max_readers=512) as env:
            return str(env.readers())

    assert str(killed.pid) in slots()
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    await store.close()
    assert str(killed.pid) not in slots()
    assert str(living.pid) in slots()


async def test_a_full_store_refuses_the_write_and_keeps_what_it_had(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=1 << 20)
    await store.append([Event("kept", "x", EventType.CLICK, 1)])
    with pytest.raises(StoreFull, match="RIPTIDE_STORE_MAP_GIB"):
        await store.append([Event("large", f"{n}", EventType.CLICK, n) for n in range(1, 90_000)])
    large, kept = await store.read(["large", "kept"])
    assert (len(large.keys), len(kept.keys)) == (0, 1)
    await store.append([Event("kept", "y", EventType.CLICK, 2)])
    await store.close()


async def test_a_store_of_which_half_cannot_be_opened_can_be_opened_once_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "control").touch()
    with pytest.raises(StoreUnavailable, match="control: the store cannot be opened"):
        LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    (tmp_path / "control").unlink()
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    await store.append([Event("u", "x", EventType.CLICK, 1)])
    await store.close()


async def test_a_record_of_another_format_reads_as_empty_is_not_overwritten_and_harms_no_neighbour(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    await store.append([Event("good", "x", EventType.CLICK, 1)])
    await store.close()
    with lmdb.open(str(tmp_path), map_size=MAP_BYTES, max_dbs=2) as env:
        users = env.open_db(b"users")
        with env.begin(write=True) as txn:
            txn.put(b"odd", b"a record of another time", db=users)
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    odd, good = await store.read(["odd", "good"])
    assert (len(odd.keys), len(good.keys)) == (0, 1)
    with pytest.raises(StoreUnavailable, match="a user record"):
        await store.append([Event("odd", "x", EventType.CLICK, 1)])
    await store.close()
    with lmdb.open(str(tmp_path), max_dbs=2) as env, env.begin() as txn:
        assert txn.get(b"odd", db=env.open_db(b"users", txn)) == b"a record of another time"


async def test_only_this_account_can_read_what_users_did(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "store", history_cap=CAP, map_bytes=MAP_BYTES)
    await store.close()
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "store").rglob("*"))
    assert tmp_path / "store" / "control" / "data.mdb" in files
    for file in files:
        assert file.stat().st_mode & 0o077 == 0


async def test_a_write_that_its_caller_gave_up_and_a_busy_lock_do_not_end_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    given_up: Future[None] = Future()
    given_up.cancel()
    with monkeypatch.context() as patch:
        # The environment is LMDB's own type and cannot be patched; the store's reference to it can.
        patch.setattr(store._environment, "_env", None)
        store._environment._commit([(lambda txn: None, given_up)])
    await store.append([Event("u", "x", EventType.CLICK, 1)])
    [record] = await store.read(["u"])
    assert len(record.keys) == 1
    await store.close()


async def test_a_disk_that_hangs_is_not_waited_for_by_more_and_more_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.lmdb_environment._MOST_WRITES_WAITING", 3)
    store = LmdbStore(tmp_path, history_cap=CAP, map_bytes=MAP_BYTES)
    hanging = store._environment._env.begin(
        write=True
    )  # the writer waits for the lock as it would for a disk
    writes = [asyncio.create_task(store.append([Event("u", "0", EventType.CLICK, 1)]))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not store._environment._queue.empty():
            await asyncio.sleep(0.001)
    writes += [asyncio.create_task(store.append([Event("u", str(n), EventType.CLICK, 1)])) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="behind by 3 writes"):
        await store.append([Event("u", "4", EventType.CLICK, 1)])
    hanging.abort()
    await asyncio.gather(*writes)
    await store.append([Event("u", "5", EventType.CLICK, 1)])
    [record] = await store.read(["u"])
    assert len(record.keys) == 5
    await store.close()
