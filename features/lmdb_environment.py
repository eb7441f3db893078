"""An LMDB environment as Riptide uses it: reads on the event loop, writes joined into commits by one thread.

Reads are memory-mapped and take about a microsecond, so they run on the event loop. Writes go to one thread
per process, which commits all that has queued up in one transaction: one `fsync` for many callers. LMDB's
lock lets one process write at a time and survives the death of its holder; a commit is all or nothing, so
a SIGKILL loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

import lmdb

from features.record import RecordError
from features.store import StoreFull, StoreUnavailable

_MOST_WRITES_PER_COMMIT = 512
_MOST_WRITES_WAITING = 4096
"""While a disk hangs, callers give up and others come; what they wanted written stays in memory."""

Change: TypeAlias = Callable[[lmdb.Transaction], Any]


class LmdbEnvironment:
    """The databases in a folder. Open a folder once per process: LMDB allows no more."""

    def __init__(self, folder: Path, *, map_bytes: int, databases: Sequence[str], when_full: str) -> None:
        """Opens them, making the folder if need be, and frees the slots of readers that died.

        Args:
            folder: where the files are.
            map_bytes: largest size of the data file.
            databases: their names.
            when_full: what `StoreFull` says.

        Raises:
            StoreUnavailable: the folder cannot be used.
        """
        try:
            # What users did is nobody's business but this account's.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env = lmdb.open(
                str(folder),
                map_size=map_bytes,
                max_dbs=len(databases),
                max_readers=512,
                readahead=False,
                mode=0o600,
            )
            self._env.reader_check()
            self.databases = {name: self._env.open_db(name.encode()) for name in databases}
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"{folder}: the store cannot be opened ({error})") from error
        self._when_full = when_full
        self._queue: SimpleQueue[tuple[Change, Future[Any]] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="store-writer", daemon=True)
        self._writer.start()

    @contextmanager
    def reading(self, database: str) -> Iterator[lmdb.Transaction]:
        """A read transaction whose default database is `database`.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        try:
            with self._env.begin(self.databases[database]) as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreUnavailable(f"the store cannot be read ({error})") from error

    async def write(self, change: Change) -> Any:
        """What `change` returned, once it is on disk; it runs on the writer's thread, alone.

        Raises:
            StoreFull, StoreUnavailable: nothing was written.
        """
        if self._queue.qsize() >= _MOST_WRITES_WAITING:
            raise StoreUnavailable(f"the disk is behind by {_MOST_WRITES_WAITING} writes; nothing was stored")
        done: Future[Any] = Future()
        self._queue.put((change, done))
        return await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Finishes the writes that were begun and releases the folder."""
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._env.close()

    def close_unused(self) -> None:
        """Releases a folder in which nothing was written yet: there is no write to wait for."""
        self._queue.put(None)
        self._writer.join()
        self._env.close()

    def _write_until_closed(self) -> None:
        closing = False
        while not closing:
            batch = [self._queue.get()]
            while len(batch) < _MOST_WRITES_PER_COMMIT and not self._queue.empty():
                batch.append(self._queue.get())
            closing = None in batch
            self._commit([entry for entry in batch if entry is not None])

    def _commit(self, batch: list[tuple[Change, Future[Any]]]) -> None:
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
                batch[0][1].set_exception(self._translated(error))
            return
        for (_, done), result in zip(batch, results, strict=True):
            done.set_result(result)

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, lmdb.MapFullError):
            return StoreFull(self._when_full)
        if isinstance(error, lmdb.Error | RecordError):
            return StoreUnavailable(f"the store cannot be written ({error})")
        return error  # a defect, which must not pass for a fault of the disk
