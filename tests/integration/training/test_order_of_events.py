"""Training and the online store read one log in one order, also where nothing says which event came first."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.backfill import backfill
from features.lmdb_store import LmdbStore
from features.schema import item_keys
from training.dataset import open_prepared


async def test_events_of_one_second_are_in_the_order_that_the_model_was_trained_with(tmp_path: Path) -> None:
    items = [f"i{n:02}" for n in range(20)]
    rows = [(user, item, 7 + n // 10) for user in ("u", "v") for n, item in enumerate(items)]
    users, names, times = zip(*rows, strict=True)
    events = {
        "user_id": users,
        "item_id": names,
        "time": pa.array(times, pa.int64()),
        "type": pa.array([2] * len(rows), pa.uint8()),
        "weight": pa.array([1.0] * len(rows), pa.float32()),
        "surface": pa.array([None] * len(rows), pa.string()),
    }
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    catalogue = {
        "item_id": items,
        "title": items,
        "categories": [[] for _ in items],
        "published": pa.nulls(len(items), pa.int64()),
    }
    pq.write_table(pa.table(catalogue), tmp_path / "items.parquet")
    (tmp_path / "report.json").write_text(json.dumps({"fingerprint": "f"}), encoding="utf-8")
    keys = item_keys(items)
    store = LmdbStore(tmp_path / "store", history_cap=100, map_bytes=64 << 20)
    try:
        await backfill(store, tmp_path)
        stored = await store.read(["u", "v"])
    finally:
        await store.close()
    trained = [keys[history.items - 1] for history in open_prepared(tmp_path).histories()]
    assert [record.keys.tolist() for record in stored] == [order.tolist() for order in trained]
    assert stored[0].keys.tolist() != stored[1].keys.tolist()
    assert stored[0].keys.tolist() != keys.tolist()
