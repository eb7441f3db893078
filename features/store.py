"""The online store: user records, read on the request path and written as events come in.

Errors:
    StoreError
    ├── StoreUnavailable  cannot be reached or opened; trying again later may help
    └── StoreFull         no room for the write; nothing was written
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from features.control import ControlStore
from features.record import CachedAnswer, Event, UserRecord
from features.settings import Settings


class StoreError(Exception):
    """Base of the errors of a store."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened; trying again later may help."""


class StoreFull(StoreError):
    """No room for the write; nothing was written."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Outcome of `append`. An event can be neither: older than all of a full history, or left out."""

    recorded: int
    duplicates: int


def user_key(user_id: str) -> bytes:
    """What stands for a user in keys: the two Unicode spellings of "é" are one user, as with items."""
    return (user_id if user_id.isascii() else unicodedata.normalize("NFC", user_id)).encode()


class FeatureStore(Protocol):
    """What Riptide needs of an online store. User ids are any strings of 1 to 256 UTF-8 bytes.

    Every method raises `StoreUnavailable` if the store cannot answer. A cancelled write may still have been
    written: all writes are safe to repeat.
    """

    @property
    def control(self) -> ControlStore:
        """The same store's part for running versions."""

    async def read(self, user_ids: Sequence[str]) -> list[UserRecord]:
        """One record per id, in order, in one round trip; `EMPTY_RECORD` for an unknown user.

        A record that cannot be decoded is logged and reads as empty, so that it harms no other user; it is
        not overwritten: writes to it fail.
        """

    async def append(self, events: Sequence[Event], *, leave_out_excluded: bool = False) -> Appended:
        """Adds events, all or none. On return they are durable, and every later `read` sees them.

        In a store that is spread over servers (a Redis Cluster) all or none holds for each user: when it
        raises, some may have been added, and to repeat it adds the others.

        A user on the exclusion list who comes back is a new user; `leave_out_excluded` is for loading old
        events, which must not bring a forgotten user back, however the two calls race.

        Raises:
            StoreFull: no room; nothing was written, but for a store that is spread over servers.
        """

    async def set_attributes(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        """Replaces the attributes of each user, user id → name → value. Durable on return.

        Users on the exclusion list are left out.
        """

    async def put_answers(self, answers: Mapping[str, CachedAnswer]) -> None:
        """Caches answers, user id → answer. Dropped silently: an answer older than the one that is kept, and
        one to a record that was forgotten since. `features.record.with_answer` tells which."""

    async def forget(self, user_id: str) -> bool:
        """Deletes the record and the exposures, and puts the id on the exclusion list, durably.

        Returns whether there was a record.
        """

    async def is_excluded(self, user_id: str) -> bool:
        """Whether the id is on the exclusion list."""

    async def excluded_users(self) -> frozenset[str]:
        """The exclusion list: users whose events no training may use."""

    async def loaded_data(self) -> str:
        """What `mark_loaded` was last called with on this store; empty if never."""

    async def mark_loaded(self, fingerprint: str) -> None:
        """Notes, durably, which prepared data the store was loaded with as a whole.

        Raises:
            StoreFull: no room; nothing was written.
        """

    async def sample_users(self, count: int) -> list[str]:
        """Up to `count` ids of users with a record, in no particular order."""

    async def close(self) -> None:
        """Finishes the writes that were begun and releases the store."""


def open_store(settings: Settings) -> FeatureStore:
    """The store that `settings.store` names.

    Raises:
        StoreUnavailable: it cannot be opened, or no such kind of store exists.
    """
    # What each needs is imported only where it is used.
    if settings.store.startswith("redis"):
        from features.redis_address import parse
        from features.redis_store import RedisStore

        return RedisStore(parse(settings.store), history_cap=settings.store_history_cap)
    folder = settings.store_folder
    if folder is None:
        raise StoreUnavailable(
            f"RIPTIDE_STORE: {settings.store_name!r} is not a store; use lmdb, lmdb:FOLDER or redis://host:port"
        )
    from features.lmdb_store import LmdbStore

    return LmdbStore(folder, history_cap=settings.store_history_cap, map_bytes=settings.store_map_gib << 30)
