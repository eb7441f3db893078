"""Filling an online store with the users of a synthetic world."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import lmdb
import numpy as np

from benchmarks.synthetic_world import World
from features.lmdb_environment import LmdbEnvironment
from features.record import Event, UserRecord, encode
from features.schema import EventType, item_keys
from features.settings import Settings
from features.store import open_store, user_key

_RECORDS_PER_WRITE = 20_000
_EVENTS_PER_WRITE = 10_000
_SAMPLE = 1_000


async def fill(settings: Settings, world: World, users: int, length: int) -> list[str]:
    """Stores `users` users with `length` events each; ids of up to a thousand of them, spread evenly.

    Raises:
        StoreError: the store cannot be written.
    """
    now = int(time.time())
    if settings.store_folder is not None:
        await _fill_lmdb(settings, world, users, length, now)
    else:
        await _append(settings, world, users, length, now)
    step = max(1, users // _SAMPLE)
    return [f"user-{i}" for i in range(0, users, step)][:_SAMPLE]


async def _fill_lmdb(settings: Settings, world: World, users: int, length: int, now: int) -> None:
    """Whole records: to merge 5 × 10^7 events one by one would take an hour."""
    assert settings.store_folder is not None
    environment = LmdbEnvironment(
        settings.store_folder,
        map_bytes=settings.store_map_gib << 30,
        databases=("users",),
        when_full="the store is full: raise RIPTIDE_STORE_MAP_GIB",
    )
    try:
        records = _records(world, users, length, now)
        while lot := list(islice(records, _RECORDS_PER_WRITE)):

            def put(txn: lmdb.Transaction, lot: list[tuple[bytes, bytes]] = lot) -> None:
                for key, value in lot:
                    txn.put(key, value, db=environment.databases["users"])

            await environment.write(put)
    finally:
        await environment.close()


def _records(world: World, users: int, length: int, now: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each user's record."""
    keys = item_keys(map(world.item_id, range(world.item_count)))
    types = np.full(length, int(EventType.CLICK), np.uint8)
    weights = np.ones(length, np.float32)
    revision = time.time_ns()
    for user_id, items, times in world.histories(users, length, now):
        record = UserRecord(keys[items], times, types, weights, b"", revision, None, revision)
        yield user_key(user_id), encode(record)


async def _append(settings: Settings, world: World, users: int, length: int, now: int) -> None:
    store = open_store(settings)
    try:
        lot: list[Event] = []
        for user_id, items, times in world.histories(users, length, now):
            lot += [
                Event(user_id, world.item_id(item), EventType.CLICK, at)
                for item, at in zip(items.tolist(), times.tolist(), strict=True)
            ]
            if len(lot) >= _EVENTS_PER_WRITE:
                await store.append(lot)
                lot = []
        if lot:
            await store.append(lot)
    finally:
        await store.close()
