"""Documents and exposures of the embedded store between processes, and when one is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.control import Exposure
from features.lmdb_control import MAP_MIB
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from features.store import StoreFull

MAP_BYTES = 64 << 20

COUNTER = """
import asyncio, sys
from pathlib import Path
from features.control import Exposure
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType

async def main(folder, name, steps):
    store = LmdbStore(Path(folder), history_cap=20, map_bytes=64 << 20)
    control = store.control
    done = 0
    while done < int(steps):
        document = await control.read_document("count")
        value = str(int(document.value or b"0") + 1).encode()
        if await control.replace_document("count", value, document.revision):
            done += 1
            await store.append([Event(f"user {done}", "x", EventType.CLICK, 1)])
            await control.log_exposures([Exposure(f"user {done}", f"e/{name}", done)])
            print(value.decode(), flush=True)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def count(tmp_path: Path) -> Iterator[Callable[[str, int], subprocess.Popen[str]]]:
    """Starts a process that counts a document up, `steps` times, and prints each number."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, steps: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COUNTER, str(tmp_path), name, str(steps)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_processes_that_cross_lose_no_step_and_expose_a_user_once(
    tmp_path: Path, count: Callable[[str, int], subprocess.Popen[str]]
) -> None:
    processes = [count("control", 100), count("treatment", 100)]
    printed = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    first, second = ([int(line) for line in out.split()] for out, _ in printed)
    assert sorted(first + second) == list(range(1, 201))

    store = LmdbStore(tmp_path, history_cap=20, map_bytes=MAP_BYTES)
    document = await store.control.read_document("count")
    assert (document.revision, document.value) == (200, b"200")
    assert sorted(exposure.user_id for exposure in await store.control.exposures("e")) == sorted(
        f"user {n}" for n in range(1, 101)
    )
    await store.close()


async def test_what_a_process_changes_is_seen_by_one_that_has_the_store_open(
    tmp_path: Path, count: Callable[[str, int], subprocess.Popen[str]]
) -> None:
    store = LmdbStore(tmp_path, history_cap=20, map_bytes=MAP_BYTES)
    assert (await store.control.read_document("count")).revision == 0
    assert await asyncio.to_thread(count("control", 3).wait, 60) == 0
    assert (await store.control.read_document("count")).value == b"3"
    assert await store.control.exposures_of("user 3") == [Exposure("user 3", "e/control", 3)]
    await store.close()


async def test_a_process_killed_at_any_moment_loses_no_change_that_was_answered(
    tmp_path: Path, count: Callable[[str, int], subprocess.Popen[str]]
) -> None:
    answered = 0
    for lines in (1, 17, 40):
        process = count("control", 100_000)
        assert process.stdout is not None
        for _ in range(lines):
            answered = int(process.stdout.readline())
        process.kill()
        rest = process.stdout.read().split("\n")
        answered = max([answered, *(int(line) for line in rest[:-1] if line)])

        store = LmdbStore(tmp_path, history_cap=20, map_bytes=MAP_BYTES)
        document = await store.control.read_document("count")
        # One more may have been committed before it was printed.
        assert answered <= int(document.value) <= answered + 1
        # The killed process' lock does not stand in the way of the next change.
        assert await store.control.replace_document("count", document.value, document.revision)
        await store.close()


async def fill(store: LmdbStore) -> None:
    """Until there is no room for one more user."""
    users = 0

    async def append_without_end(batch: int) -> None:
        nonlocal users
        while True:
            await store.append([Event(f"{users + n}", "x", EventType.CLICK, 1) for n in range(batch)])
            users += batch

    for batch in (1000, 100, 1):
        with pytest.raises(StoreFull, match="RIPTIDE_STORE_MAP_GIB"):
            await append_without_end(batch)


async def write_control(store: LmdbStore) -> None:
    """Ten documents and reports of 100 KB, each replaced several times."""
    for step in range(30):
        document = await store.control.read_document(f"rollout/{step % 10}")
        value = b"%02d" % step * 50_000
        assert await store.control.replace_document(f"rollout/{step % 10}", value, document.revision)
        await store.control.put_report(f"process {step % 10}", value)
        assert (await store.control.read_document(f"rollout/{step % 10}")).value == value
        assert (await store.control.reports())[f"process {step % 10}"] == value


async def test_a_store_that_users_have_filled_still_takes_documents_and_reports(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, history_cap=20, map_bytes=1 << 20)
    await fill(store)
    await write_control(store)
    await store.close()

    store = LmdbStore(tmp_path, history_cap=20, map_bytes=1 << 20)
    await fill(store)
    await write_control(store)
    assert (await store.control.read_document("rollout/3")).revision == 6
    await store.close()


async def test_reports_without_end_fill_only_what_is_theirs_and_say_so(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, history_cap=20, map_bytes=MAP_BYTES)
    with pytest.raises(StoreFull, match=f"documents and reports have filled their {MAP_MIB} MiB"):
        await store.control.put_report("one", bytes((MAP_MIB << 20) + 1))
    await store.append([Event("u", "x", EventType.CLICK, 1)])
    await store.control.put_report("one", b"small")
    assert await store.control.reports() == {"one": b"small"}
    await store.close()
