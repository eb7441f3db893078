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
from tests.unit.loadtest.running import Gateway


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
    users = ["busy"] * 9 + ["calm"] * 2 + ["née"]
    pyarrow.parquet.write_table(pyarrow.table({"user_id": users}), folder / "events.parquet")
    return folder


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A service level that a busy machine keeps, too."""
    path = tmp_path / "lenient.toml"
    path.write_text("p50_ms = 4000\np99_ms = 5000\nerror_rate = 0\ndegraded_rate = 0\n")
    return path
