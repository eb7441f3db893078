from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from features.catalog import Catalog, CatalogItem, write_catalog
from features.schema import item_keys
from features.settings import Settings
from gateway.scorer import triton_channel
from tests.unit.gateway.fakes import FakeTriton
from tests.unit.gateway.spans import Spans


def numbered_catalog(path: Path, published: Sequence[int] = (0,) * 30) -> Catalog:
    """Items "0" to "29", popular first, all in "all", even ones in "even"; neighbours: the next three."""
    items = [
        CatalogItem(str(n), f"Title {n}", ("all", "even") if n % 2 == 0 else ("all",), since)
        for n, since in enumerate(published)
    ]
    keys = item_keys(item.item_id for item in items)
    near = np.stack([np.roll(keys, -shift) for shift in (1, 2, 3)], axis=1)
    write_catalog(
        path,
        items=items,
        categories=["all", "even"],
        popular=keys,
        neighbour_keys=near,
        neighbour_scores=np.tile(np.array([0.9, 0.8, 0.7], np.float32), (30, 1)),
    )
    return Catalog(path)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A `numbered_catalog` of items that always were there."""
    catalog = numbered_catalog(tmp_path / "catalog.lmdb")
    yield catalog
    catalog.close()


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    """A Triton that is told which versions it has, and listens at its `target`."""
    fake, server = FakeTriton(), grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield fake
    await server.stop(0)


@pytest.fixture
async def channel(triton: FakeTriton) -> AsyncIterator[grpc.aio.Channel]:
    """To that Triton."""
    channel = triton_channel(triton.target)
    yield channel
    await channel.close()


@pytest.fixture
def settings(tmp_path: Path, catalog: Catalog) -> Settings:
    """A repository with versions 1, 2 and 3; the histories of version n are n + 3 wide."""
    repository = tmp_path / "repository"
    for version in (1, 2, 3):
        folder = repository / "recommender" / str(version)
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "catalog.lmdb", folder)
        (folder / "manifest.json").write_text(json.dumps({"widths": {"T": version + 3}}))
    return Settings(model_repository=repository)


@pytest.fixture
def spans() -> Spans:
    """Every call that is asked about is traced."""
    return Spans()
