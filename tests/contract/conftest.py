"""The online stores that must keep the contracts. A new store is added to `STORES` and passes all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from features.lmdb_store import LmdbStore
from features.redis_address import parse
from features.redis_store import RedisStore
from features.store import FeatureStore
from tests.valkey import Valkey, cluster, one_server

CAP = 20

Open: TypeAlias = Callable[[], FeatureStore]
Reopen: TypeAlias = Callable[[], Awaitable[FeatureStore]]


def _lmdb(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return lambda: LmdbStore(tmp_path / "store", history_cap=CAP, map_bytes=64 << 20)


def _redis(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    server: Valkey = request.getfixturevalue("valkey")
    return _empty([server], f"redis://{server.address}/0")


def _redis_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    servers: list[Valkey] = request.getfixturevalue("valkey_cluster")
    return _empty(servers, f"redis+cluster://{servers[1].address}")


def _empty(servers: list[Valkey], url: str) -> Open:
    for server in servers:
        server.ask("FLUSHALL")
    # What a store does is asked for here, not how fast it is on a busy machine.
    return lambda: RedisStore(parse(f"{url}?timeout_ms=5000"), history_cap=CAP)


STORES: dict[str, Callable[[pytest.FixtureRequest, Path], Open]] = {
    "lmdb": _lmdb,
    "redis": _redis,
    "redis-cluster": _redis_cluster,
}


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A server, for all tests."""
    with one_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Valkey]]:
    """Three primaries, for all tests."""
    with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(params=STORES)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Opens the store; called again, closes it and opens it anew on the same data."""
    open_it = STORES[request.param](request, tmp_path)
    opened: list[FeatureStore] = []

    async def again() -> FeatureStore:
        if opened:
            await opened.pop().close()
        opened.append(open_it())
        return opened[0]

    yield again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> FeatureStore:
    """An empty store."""
    return await reopen()
