"""The embedded store: LMDB, shared by the processes of one machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb

from features import lmdb_control
from features.lmdb_environment import LmdbEnvironment
from features.record import (
    EMPTY_RECORD,
    CachedAnswer,
    Event,
    RecordError,
    UserRecord,
    decode,
    encode,
    with_answer,
    with_attributes,
    with_events,
)
from features.store import Appended, StoreUnavailable, user_key

# The key in the database `about`.
_LOADED = b"loaded"

log = logging.getLogger("riptide.features.lmdb_store")


class LmdbStore:
    """A `FeatureStore` in a folder. Open a folder once per process: LMDB allows no more.

    Two environments: that of the users, and in the folder `control` that of documents and reports.
    """

    def __init__(self, folder: Path, *, history_cap: int, map_bytes: int) -> None:
        """Opens the store, making the folder if need be, and frees the slots of readers that died.

        Args:
            folder: where the files are.
            history_cap: events kept per user.
            map_bytes: largest size of the users' data file; documents and reports have another.

        Raises:
            StoreUnavailable: the folder cannot be used.
        """
        self._history_cap = history_cap
        self._environment = LmdbEnvironment(
            folder,
            map_bytes=map_bytes,
            databases=("users", "excluded", "about", *lmdb_control.BESIDE_USERS),
            when_full="the store is full: raise RIPTIDE_STORE_MAP_GIB and restart",
        )
        self._users, self._excluded, self._about = (
            self._environment.databases[name] for name in ("users", "excluded", "about")
        )
        try:
            # After the first: the folder that it lies in was made with its mode.
            self._of_control = lmdb_control.open_own(folder)
        except StoreUnavailable:
            # Or this process could never open the store again.
            self._environment.close_unused()
            raise
        self.control = lmdb_control.LmdbControl(self._of_control, self._environment)

    # Reads

    async def read(self, user_ids: Sequence[str]) -> list[UserRecord]:
        with self._environment.reading("users") as txn:
            values = [txn.get(user_key(user_id)) for user_id in user_ids]
        return [EMPTY_RECORD if value is None else _readable(value) for value in values]

    async def is_excluded(self, user_id: str) -> bool:
        with self._environment.reading("excluded") as txn:
            return txn.get(user_key(user_id)) is not None

    async def excluded_users(self) -> frozenset[str]:
        with self._environment.reading("excluded") as txn:
            return frozenset(bytes(key).decode() for key in txn.cursor().iternext(values=False))

    async def sample_users(self, count: int) -> list[str]:
        with self._environment.reading("users") as txn:
            keys = txn.cursor().iternext(values=False)
            return [bytes(key).decode() for key, _ in zip(keys, range(count), strict=False)]

    async def loaded_data(self) -> str:
        with self._environment.reading("about") as txn:
            return bytes(txn.get(_LOADED, b"")).decode()

    # Writes

    async def append(self, events: Sequence[Event], *, leave_out_excluded: bool = False) -> Appended:
        by_user: dict[str, list[Event]] = {}
        for event in events:
            by_user.setdefault(event.user_id, []).append(event)

        def change(txn: lmdb.Transaction) -> Appended:
            recorded = duplicates = 0
            for user_id, own in by_user.items():
                if leave_out_excluded and self._is_excluded(txn, user_id):
                    continue
                merged = with_events(self._get(txn, user_id), own, self._history_cap)
                if merged.recorded:
                    txn.put(user_key(user_id), encode(merged.record), db=self._users)
                recorded, duplicates = recorded + merged.recorded, duplicates + merged.duplicates
            return Appended(recorded, duplicates)

        appended: Appended = await self._environment.write(change)
        return appended

    async def set_attributes(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for user_id, own in attributes.items():
                if self._is_excluded(txn, user_id):
                    continue
                old = self._get(txn, user_id)
                if (record := with_attributes(old, own)) is not old:
                    txn.put(user_key(user_id), encode(record), db=self._users)

        await self._environment.write(change)

    async def put_answers(self, answers: Mapping[str, CachedAnswer]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for user_id, answer in answers.items():
                old = self._get(txn, user_id)
                if (record := with_answer(old, answer)) is not old:
                    txn.put(user_key(user_id), encode(record), db=self._users)

        await self._environment.write(change)

    async def forget(self, user_id: str) -> bool:
        def change(txn: lmdb.Transaction) -> bool:
            txn.put(user_key(user_id), b"", db=self._excluded)
            self.control.forget(txn, user_id)
            return bool(txn.delete(user_key(user_id), db=self._users))

        existed: bool = await self._environment.write(change)
        return existed

    async def mark_loaded(self, fingerprint: str) -> None:
        await self._environment.write(lambda txn: txn.put(_LOADED, fingerprint.encode(), db=self._about))

    async def close(self) -> None:
        await self._environment.close()
        await self._of_control.close()

    def _is_excluded(self, txn: lmdb.Transaction, user_id: str) -> bool:
        return txn.get(user_key(user_id), db=self._excluded) is not None

    def _get(self, txn: lmdb.Transaction, user_id: str) -> UserRecord:
        value = txn.get(user_key(user_id), db=self._users)
        return EMPTY_RECORD if value is None else decode(bytes(value))


def _readable(value: Any) -> UserRecord:
    try:
        return decode(bytes(value))
    except RecordError as error:
        log.error("a user record reads as empty: %s", error)
        return EMPTY_RECORD
