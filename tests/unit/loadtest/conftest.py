"""Users to ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from tests.unit.loadtest.running import EVENTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all runs of a module."""
    return tmp_path_factory.mktemp("runs")


async def store_in(folder: Path) -> Path:
    """A store with those users, and with one of whom there is an attribute and no event."""
    store = LmdbStore(folder, history_cap=100, map_bytes=1 << 24)
    for user, count in EVENTS.items():
        await store.append([Event(user, f"i{n}", EventType.READ, 1000 + n) for n in range(count)])
    await store.set_attributes({"silent": {"age": "30"}})
    await store.close()
    return folder
