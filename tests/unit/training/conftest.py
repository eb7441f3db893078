"""Prepared data folders, written directly, for the tests of what comes after cleaning."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.dataset import Prepared, open_prepared


@pytest.fixture(scope="module", autouse=True)
def nobody_is_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Training asks the store of the settings whom to leave out; tests have one of their own, with nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIPTIDE_STATE_DIR", str(tmp_path_factory.mktemp("settings")))
        yield


Log = Mapping[str, Sequence[tuple[str, int]]]
"""User id → (item id, time) of each event, oldest first."""
MakePrepared = Callable[..., Prepared]


@pytest.fixture
def make_prepared(tmp_path: Path) -> MakePrepared:
    """Writes a prepared folder from a log; items are those of the log unless given with their categories."""

    def make(log: Log, items: Mapping[str, Sequence[str]] | None = None) -> Prepared:
        folder = tmp_path / "prepared"
        folder.mkdir()
        rows = sorted((user, time, item) for user, events in log.items() for item, time in events)
        users, times, item_ids = zip(*rows, strict=True)
        events = {
            "user_id": pa.array(users, pa.string()),
            "item_id": pa.array(item_ids, pa.string()),
            "time": pa.array(times, pa.int64()),
            "type": pa.array([8] * len(rows), pa.uint8()),
            "weight": pa.array([1.0] * len(rows), pa.float32()),
            "surface": pa.nulls(len(rows), pa.string()),
        }
        pq.write_table(pa.table(events), folder / "events.parquet")
        if items is None:
            items = {item: [] for item in item_ids}
        table = {
            "item_id": pa.array(sorted(items), pa.string()),
            "title": pa.array([f"Title of {item}" for item in sorted(items)], pa.string()),
            "categories": pa.array([list(items[item]) for item in sorted(items)], pa.list_(pa.string())),
            "text": pa.array([f"Title of {item}" for item in sorted(items)], pa.string()),
            "published": pa.nulls(len(items), pa.int64()),
        }
        pq.write_table(pa.table(table), folder / "items.parquet")
        (folder / "report.json").write_text(json.dumps({"fingerprint": "f" * 64}), encoding="utf-8")
        return open_prepared(folder)

    return make


@pytest.fixture
def cycles(make_prepared: MakePrepared) -> Prepared:
    """60 users who go round 24 items in the same order, each from another start, so the next is certain."""
    rng = np.random.default_rng(5)
    log = {}
    for user in range(60):
        start, length = int(rng.integers(24)), int(rng.integers(6, 20))
        log[f"user-{user:02}"] = [(f"item-{(start + i) % 24:02}", 1000 + i) for i in range(length)]
    return make_prepared(log, {f"item-{i:02}": ["even" if i % 2 == 0 else "odd"] for i in range(24)})
