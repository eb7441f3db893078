from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.__main__ import main
from features.backfill import BackfillError, backfill, backfill_once
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType, item_key
from features.store import StoreFull


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    store = LmdbStore(tmp_path / "store", history_cap=100, map_bytes=64 << 20)
    yield store
    await store.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [("u", "x", 10, 8, 4.0), ("u", "y", 20, 2, 1.0), ("v", "x", 5, 1, 1.0)]
    names = ["user_id", "item_id", "time", "type", "weight"]
    types = [pa.string(), pa.string(), pa.int64(), pa.uint8(), pa.float32()]
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    pq.write_table(pa.table(columns, names), folder / "events.parquet")
    pq.write_table(
        pa.table({"user_id": ["u", "v"], "gender": ["F", None], "job": ["Ärztin", "x"]}),
        folder / "users.parquet",
    )
    return folder


async def test_events_and_attributes_are_loaded_and_a_repetition_changes_nothing(
    store: LmdbStore, data: Path
) -> None:
    first = await backfill(store, data)
    before = await store.read(["u", "v"])
    again = await backfill(store, data)
    u, v = await store.read(["u", "v"])
    assert (first.users, first.recorded, first.already_stored) == (2, 3, 0)
    assert (again.recorded, again.already_stored) == (0, 3)
    assert u.keys.tolist() == [item_key("x"), item_key("y")]
    assert u.types.tolist() == [EventType.RATE, EventType.CLICK]
    assert u.weights.tolist() == [4.0, 1.0]
    assert u.attributes == {"gender": "F", "job": "Ärztin"}
    assert v.attributes == {"job": "x"}
    assert [u.revision, v.revision] == [record.revision for record in before]


async def test_events_recorded_since_stay(store: LmdbStore, data: Path) -> None:
    await store.append([Event("u", "new", EventType.CLICK, 30)])
    await backfill(store, data)
    [record] = await store.read(["u"])
    assert record.keys.tolist() == [item_key("x"), item_key("y"), item_key("new")]


async def test_what_was_only_shown_is_no_event(store: LmdbStore, data: Path) -> None:
    shown = {"user_id": ["u"], "item_id": ["z"], "time": [30], "surface": ["home"]}
    pq.write_table(pa.table(shown), data / "exposures.parquet")
    events = pq.read_table(data / "events.parquet")
    surfaces = pa.array(["home", None, "home"], pa.string())
    pq.write_table(events.append_column("surface", surfaces), data / "events.parquet")
    loaded = await backfill(store, data)
    [record] = await store.read(["u"])
    assert loaded.recorded == 3
    assert record.keys.tolist() == [item_key("x"), item_key("y")]


async def test_forgotten_users_stay_forgotten(store: LmdbStore, data: Path) -> None:
    await store.forget("u")
    loaded = await backfill(store, data)
    u, v = await store.read(["u", "v"])
    assert (loaded.users, loaded.forgotten_users) == (1, 1)
    assert (len(u.keys), u.attributes, len(v.keys)) == (0, {}, 1)


async def test_what_was_loaded_as_a_whole_is_not_loaded_again(store: LmdbStore, data: Path) -> None:
    first = await backfill_once(store, data, history_cap=100)
    assert first is not None
    assert first.recorded == 3
    await store.forget("u")
    assert await backfill_once(store, data, history_cap=100) is None
    [u] = await store.read(["u"])
    assert len(u.keys) == 0


async def test_other_data_and_a_longer_history_are_loaded(store: LmdbStore, data: Path) -> None:
    await backfill_once(store, data, history_cap=100)
    assert await backfill_once(store, data, history_cap=200) is not None
    attributes = pq.read_table(data / "users.parquet")
    pq.write_table(attributes.drop_columns("gender"), data / "users.parquet")
    assert await backfill_once(store, data, history_cap=200) is not None
    events = pq.read_table(data / "events.parquet")
    pq.write_table(events.set_column(0, "user_id", pa.array(["u", "w", "w"])), data / "events.parquet")
    loaded = await backfill_once(store, data, history_cap=200)
    assert loaded is not None
    assert loaded.recorded == 2


async def test_another_store_is_loaded_with_the_same_data(
    store: LmdbStore, data: Path, tmp_path: Path
) -> None:
    await backfill_once(store, data, history_cap=100)
    other = LmdbStore(tmp_path / "other", history_cap=100, map_bytes=64 << 20)
    try:
        loaded = await backfill_once(other, data, history_cap=100)
    finally:
        await other.close()
    assert loaded is not None
    assert loaded.recorded == 3


async def test_a_load_that_was_cut_short_is_repeated(
    store: LmdbStore, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise StoreFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(store, "set_attributes", full)
        with pytest.raises(StoreFull):
            await backfill_once(store, data, history_cap=100)
    assert await backfill_once(store, data, history_cap=100) is not None
    [u] = await store.read(["u"])
    assert u.attributes == {"gender": "F", "job": "Ärztin"}


async def test_a_folder_without_prepared_data_is_refused_with_what_to_do(
    store: LmdbStore, tmp_path: Path
) -> None:
    with pytest.raises(BackfillError, match=r"events\.parquet: not a prepared event log .* training prepare"):
        await backfill_once(store, tmp_path, history_cap=100)


def test_the_command_says_what_it_loaded_and_that_it_is_there_already(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIPTIDE_STATE_DIR", str(tmp_path / "var"))
    monkeypatch.setattr(sys, "argv", ["features", "backfill", "--data", str(data)])
    assert (main(), main()) == (0, 0)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("online store: 2 users, 3 events loaded")
    assert second == f"online store: loaded with {data} already"
    assert (tmp_path / "var").stat().st_mode & 0o077 == 0
