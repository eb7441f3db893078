"""The embedded store is held up: what waits for that, what does not, and that it is always let go again.

That of a shared store is tested on a real one, in tests/integration.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.during.store import LmdbBrake, RedisBrake, SlowStore, brake_of
from benchmarks.errors import BenchmarkError
from features.lmdb_store import LmdbStore
from features.settings import Settings
from tests.unit.benchmarks.watched_load import WatchedLoad

MAP_BYTES = 1 << 24
OPENED = """
import asyncio, sys, time
from pathlib import Path
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType

async def main():
    store = LmdbStore(Path(sys.argv[1]), history_cap=10, map_bytes=1 << 24)
    print("open", flush=True)
    sys.stdin.readline()
    {what}
    print("done", flush=True)
    await store.close()

asyncio.run(main())
"""
"""Another process that has the store open, and uses it when it is told to: to open one is to write."""
WRITES = OPENED.format(what="await store.append([Event('ann', 'i1', EventType.CLICK, 1000)])")
READS = OPENED.format(what="await store.read(['ann'])")
HOLDS = """
import sys
from pathlib import Path
from benchmarks.during.store import LmdbBrake
with LmdbBrake(Path(sys.argv[1]), 1 << 24).hold(60.0):
    print("open", flush=True)
    sys.stdin.readline()
"""
BROKEN_HOLD_SHOWS_S = 0.3


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    await LmdbStore(folder, history_cap=10, map_bytes=MAP_BYTES).close()
    return folder


@contextmanager
def begun(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def done(process: subprocess.Popen[str]) -> bool:
    """Whether it has done what it is to do, before long."""
    out, _ = process.communicate("go\n", timeout=30)
    return out == "done\n"


def test_writes_wait_until_it_is_let_go_and_reads_do_not(folder: Path) -> None:
    brake = LmdbBrake(folder, MAP_BYTES)
    with begun(READS, folder) as reader, begun(WRITES, folder) as writer:
        assert writer.stdin is not None
        with brake.hold(60.0):
            assert done(reader)
            writer.stdin.write("go\n")
            writer.stdin.flush()
            time.sleep(BROKEN_HOLD_SHOWS_S)
            assert writer.poll() is None
        out, _ = writer.communicate(timeout=30)
        assert out == "done\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, BenchmarkError])
def test_it_is_let_go_whatever_ends_the_load(folder: Path, error: type[BaseException]) -> None:
    scenario = SlowStore(Settings(store=f"lmdb:{folder}", store_map_gib=1))
    scenario.prepare()
    with pytest.raises(error):
        scenario.happen(WatchedLoad(error()))
    with begun(WRITES, folder) as writer:
        assert done(writer)


def test_a_process_that_is_killed_lets_it_go(folder: Path) -> None:
    with begun(HOLDS, folder) as holder:
        holder.kill()
        holder.wait()
    with begun(WRITES, folder) as writer:
        assert done(writer)


def test_it_happens_several_times_and_each_is_marked(folder: Path) -> None:
    scenario = SlowStore(Settings(store=f"lmdb:{folder}", store_map_gib=1))
    scenario.prepare()
    load = WatchedLoad()
    assert scenario.happen(load) == []
    assert load.marks == ["writes to the store wait", "writes to the store go on"] * 3


def test_where_there_is_no_store_none_is_made(tmp_path: Path) -> None:
    scenario = SlowStore(Settings(store=f"lmdb:{tmp_path / 'nowhere'}"))
    with pytest.raises(BenchmarkError, match=r"nowhere: there is no store"):
        scenario.prepare()
    assert not list(tmp_path.iterdir())


def test_the_kind_of_store_decides_how() -> None:
    assert isinstance(brake_of(Settings(store="redis://127.0.0.1:1")), RedisBrake)
    with pytest.raises(BenchmarkError, match="RIPTIDE_STORE: each server is host:port"):
        brake_of(Settings(store="redis://"))


def test_a_shared_store_that_is_not_there_is_a_sentence() -> None:
    scenario = SlowStore(Settings(store="redis://127.0.0.1:1"))
    with pytest.raises(BenchmarkError, match=r"the store cannot be paused: RIPTIDE_STORE: 127\.0\.0\.1:1 "):
        scenario.prepare()
