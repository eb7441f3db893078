"""Who is in a store."""

from __future__ import annotations

from pathlib import Path

from features.__main__ import users_with_events
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType


async def test_each_is_named_with_how_many_events_they_have_and_no_more_than_asked_for(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path / "store", history_cap=100, map_bytes=1 << 24)
    counts = {f"user {number}": 1 + number % 7 for number in range(120)}
    try:
        for user, count in counts.items():
            await store.append([Event(user, f"i{n}", EventType.READ, 1000 + n) for n in range(count)])
        await store.set_attributes({"silent": {"age": "30"}})
        assert dict(await users_with_events(store, 1000)) == counts
        some = dict(await users_with_events(store, 70))
        assert len(some) in (69, 70), "the silent one may be among those who were looked at"
        assert some.items() <= counts.items()
    finally:
        await store.close()
