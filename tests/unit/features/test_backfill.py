from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.backfill import BackfillError, backfill
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType, item_key


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


async def test_forgotten_users_stay_forgotten(store: LmdbStore, data: Path) -> None:
    await store.forget("u")
    loaded = await backfill(store, data)
    u, v = await store.read(["u", "v"])
    assert (loaded.users, loaded.forgotten_users) == (1, 1)
    assert (len(u.keys), u.attributes, len(v.keys)) == (0, {}, 1)


async def test_a_folder_without_prepared_data_is_refused_with_what_to_do(
    store: LmdbStore, tmp_path: Path
) -> None:
    with pytest.raises(BackfillError, match=r"events\.parquet: not a prepared event log .* training prepare"):
        await backfill(store, tmp_path)
