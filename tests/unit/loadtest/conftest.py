"""A gateway whose answers the test chooses, and users to ask for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pyarrow
import pyarrow.parquet
import pytest

from client.riptide.v1.recommender_pb2_grpc import add_RecommenderServicer_to_server
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from tests.unit.loadtest.running import EVENTS, Gateway


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = grpc.server(ThreadPoolExecutor(128))
    gateway = Gateway()
    add_RecommenderServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield gateway
    server.stop(None).wait()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    users = [user for user, count in EVENTS.items() for _ in range(count)]
    pyarrow.parquet.write_table(pyarrow.table({"user_id": users}), folder / "events.parquet")
    return folder


@pytest.fixture
async def store_folder(tmp_path: Path) -> Path:
    """A store with those users, and with one of whom there is an attribute and no event."""
    folder = tmp_path / "store"
    store = LmdbStore(folder, history_cap=100, map_bytes=1 << 24)
    for user, count in EVENTS.items():
        await store.append([Event(user, f"i{n}", EventType.READ, 1000 + n) for n in range(count)])
    await store.set_attributes({"silent": {"age": "30"}})
    await store.close()
    return folder


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A service level that a busy machine keeps, too."""
    path = tmp_path / "lenient.toml"
    path.write_text("p50_ms = 4000\np99_ms = 5000\nerror_rate = 0\ndegraded_rate = 0\n")
    return path
