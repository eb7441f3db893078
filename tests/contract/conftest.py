"""The online stores that must keep the contracts. A new store is added to `STORES` and passes all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from features.lmdb_store import LmdbStore
from features.store import FeatureStore

CAP = 20
STORES: dict[str, Callable[[Path], FeatureStore]] = {
    "lmdb": lambda folder: LmdbStore(folder, history_cap=CAP, map_bytes=64 << 20),
}

Reopen: TypeAlias = Callable[[], Awaitable[FeatureStore]]


@pytest.fixture(params=STORES)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Opens the store; called again, closes it and opens it anew on the same data."""
    opened: list[FeatureStore] = []

    async def again() -> FeatureStore:
        if opened:
            await opened.pop().close()
        opened.append(STORES[request.param](tmp_path / "store"))
        return opened[0]

    yield again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> FeatureStore:
    """An empty store."""
    return await reopen()
