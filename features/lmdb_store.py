"""The embedded store: LMDB, shared by the processes of one machine.

Reads are memory-mapped and take about a microsecond, so they run on the event loop. Writes go to one thread
per process, which commits all that has queued up in one transaction: one `fsync` for many callers. LMDB's
lock lets one process write at a time and survives the death of its holder; a commit is all or nothing, so
a SIGKILL loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

import lmdb

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
from features.store import Appended, StoreFull, StoreUnavailable

_MOST_WRITES_PER_COMMIT = 512
_MOST_WRITES_WAITING = 4096
"""While a disk hangs, callers give up and others come; what they wanted written stays in memory."""
# The key in the database `about`.
_LOADED = b"loaded"

log = logging.getLogger("riptide.features.lmdb_store")

_Change: TypeAlias = Callable[[lmdb.Transaction], Any]


def _user_key(user_id: str) -> bytes:
    # The two Unicode spellings of "é" are one user, as with items.
    return (user_id if user_id.isascii() else unicodedata.normalize("NFC", user_id)).encode()


class LmdbStore:
    """A `FeatureStore` in a folder. Open a folder once per process: LMDB allows no more."""

    def __init__(self, folder: Path, *, history_cap: int, map_bytes: int) -> None:
        """Opens the store, making the folder if need be, and frees the slots of readers that died.

        Args:
            folder: where the files are.
            history_cap: events kept per user.
            map_bytes: largest size of the data file.

        Raises:
            StoreUnavailable: the folder cannot be used.
        """
        self._history_cap = history_cap
        try:
            # What users did is nobody's business but this account's.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(folder), map_size=map_bytes, max_dbs=3, max_readers=512, readahead=False, mode=0o600
            )
            self._env.reader_check()
            self._users = self._env.open_db(b"users")
            self._excluded = self._env.open_db(b"excluded")
            self._about = self._env.open_db(b"about")
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"{folder}: the store cannot be opened ({error})") from error
        self._queue: SimpleQueue[tuple[_Change, Future[Any]] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)
        self._writer.start()

    # Reads

    async def read(self, user_ids: Sequence[str]) -> list[UserRecord]:
        with self._reading(self._users) as txn:
            values = [txn.get(_user_key(user_id)) for user_id in user_ids]
        return [EMPTY_RECORD if value is None else _readable(value) for value in values]

    async def is_excluded(self, user_id: str) -> bool:
        with self._reading(self._excluded) as txn:
            return txn.get(_user_key(user_id)) is not None

    async def excluded_users(self) -> frozenset[str]:
        with self._reading(self._excluded) as txn:
            return frozenset(bytes(key).decode() for key in txn.cursor().iternext(values=False))

    async def sample_users(self, count: int) -> list[str]:
        with self._reading(self._users) as txn:
            keys = txn.cursor().iternext(values=False)
            return [bytes(key).decode() for key, _ in zip(keys, range(count), strict=False)]

    async def loaded_data(self) -> str:
        with self._reading(self._about) as txn:
            return bytes(txn.get(_LOADED, b"")).decode()

    @contextmanager
    def _reading(self, database: Any) -> Iterator[lmdb.Transaction]:
        try:
            with self._env.begin(database) as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreUnavailable(f"the store cannot be read ({error})") from error

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
                    txn.put(_user_key(user_id), encode(merged.record), db=self._users)
                recorded, duplicates = recorded + merged.recorded, duplicates + merged.duplicates
            return Appended(recorded, duplicates)

        appended: Appended = await self._write(change)
        return appended

    async def set_attributes(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for user_id, own in attributes.items():
                if self._is_excluded(txn, user_id):
                    continue
                old = self._get(txn, user_id)
                if (record := with_attributes(old, own)) is not old:
                    txn.put(_user_key(user_id), encode(record), db=self._users)

        await self._write(change)

    async def put_answers(self, answers: Mapping[str, CachedAnswer]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for user_id, answer in answers.items():
                record = self._get(txn, user_id)
                # Also false for a user who was forgotten in the meantime: EMPTY_RECORD has revision 0.
                if record.revision == answer.revision:
                    txn.put(_user_key(user_id), encode(with_answer(record, answer)), db=self._users)

        await self._write(change)

    async def forget(self, user_id: str) -> bool:
        def change(txn: lmdb.Transaction) -> bool:
            txn.put(_user_key(user_id), b"", db=self._excluded)
            return bool(txn.delete(_user_key(user_id), db=self._users))

        existed: bool = await self._write(change)
        return existed

    async def mark_loaded(self, fingerprint: str) -> None:
        await self._write(lambda txn: txn.put(_LOADED, fingerprint.encode(), db=self._about))

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._env.close()

    def _is_excluded(self, txn: lmdb.Transaction, user_id: str) -> bool:
        return txn.get(_user_key(user_id), db=self._excluded) is not None

    def _get(self, txn: lmdb.Transaction, user_id: str) -> UserRecord:
        value = txn.get(_user_key(user_id), db=self._users)
        return EMPTY_RECORD if value is None else decode(bytes(value))

    async def _write(self, change: _Change) -> Any:
        if self._queue.qsize() >= _MOST_WRITES_WAITING:
            raise StoreUnavailable(f"the disk is behind by {_MOST_WRITES_WAITING} writes; nothing was stored")
        done: Future[Any] = Future()
        self._queue.put((change, done))
        return await asyncio.wrap_future(done)

    def _write_until_closed(self) -> None:
        closing = False
        while not closing:
            batch = [self._queue.get()]
            while len(batch) < _MOST_WRITES_PER_COMMIT and not self._queue.empty():
                batch.append(self._queue.get())
            closing = None in batch
            self._commit([entry for entry in batch if entry is not None])

    def _commit(self, batch: list[tuple[_Change, Future[Any]]]) -> None:
        # From here on a caller that gives up no longer stops its write: the future counts as running.
        batch = [entry for entry in batch if entry[1].running() or entry[1].set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            with self._env.begin(write=True) as txn:
                results = [change(txn) for change, _ in batch]
        except Exception as error:  # whatever a change raises belongs to its caller
            if len(batch) > 1:
                # All is undone. One bad change must not fail its neighbours: each gets a transaction.
                for entry in batch:
                    self._commit([entry])
            else:
                batch[0][1].set_exception(_translated(error))
            return
        for (_, done), result in zip(batch, results, strict=True):
            done.set_result(result)


def _readable(value: Any) -> UserRecord:
    try:
        return decode(bytes(value))
    except RecordError as error:
        log.error("a user record reads as empty: %s", error)
        return EMPTY_RECORD


def _translated(error: Exception) -> Exception:
    if isinstance(error, lmdb.MapFullError):
        return StoreFull("the store is full: raise RIPTIDE_STORE_MAP_GIB and restart")
    if isinstance(error, lmdb.Error | RecordError):
        return StoreUnavailable(f"the store cannot be written ({error})")
    return error  # a defect, which must not pass for a fault of the disk
