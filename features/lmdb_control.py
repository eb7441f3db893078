"""The `ControlStore` of the embedded store.

Documents and reports have an environment of their own: when users have filled theirs, an operator must still
be able to roll back. Exposures are beside the users, whose transactions they need.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path

import lmdb

from features.control import Document, Exposure, experiment_of
from features.lmdb_environment import LmdbEnvironment
from features.store import user_key

BESIDE_USERS = ("exposures",)
"""Databases that the users' environment must have."""

MAP_MIB = 64
"""Several hundred reports of 100 KB; on the disk the file is only as large as what is in it."""

_REVISION = struct.Struct("<q")
_DIGEST_BYTES = 16


class LmdbControl:
    """Documents and reports in `own`, exposures in the environment of the users."""

    def __init__(self, own: LmdbEnvironment, of_users: LmdbEnvironment) -> None:
        self._own, self._of_users = own, of_users
        self._documents, self._reports = own.databases["documents"], own.databases["reports"]
        self._users, self._exposures = of_users.databases["users"], of_users.databases["exposures"]

    async def read_document(self, name: str) -> Document:
        with self._own.reading("documents") as txn:
            return _document(txn.get(name.encode()))

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        def change(txn: lmdb.Transaction) -> bool:
            if _document(txn.get(name.encode(), db=self._documents)).revision != revision:
                return False
            txn.put(name.encode(), _REVISION.pack(revision + 1) + value, db=self._documents)
            return True

        replaced: bool = await self._own.write(change)
        return replaced

    async def put_report(self, source: str, value: bytes) -> None:
        await self._own.write(lambda txn: txn.put(source.encode(), value, db=self._reports))

    async def reports(self) -> dict[str, bytes]:
        with self._own.reading("reports") as txn:
            return {bytes(source).decode(): bytes(value) for source, value in txn.cursor()}

    async def drop_reports(self, sources: Collection[str]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for source in sources:
                txn.delete(source.encode(), db=self._reports)

        if sources:
            await self._own.write(change)

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for exposure in exposures:
                if txn.get(user_key(exposure.user_id), db=self._users) is None:
                    continue
                key = user_digest(exposure.user_id) + experiment_of(exposure.arm).encode()
                value = json.dumps([exposure.user_id, exposure.arm, exposure.at]).encode()
                txn.put(key, value, overwrite=False, db=self._exposures)

        await self._of_users.write(change)

    async def exposures(self, experiment: str) -> list[Exposure]:
        name = experiment.encode()
        with self._of_users.reading("exposures") as txn:
            return [
                Exposure(*json.loads(bytes(value)))
                for key, value in txn.cursor()
                if bytes(key[_DIGEST_BYTES:]) == name
            ]

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        with self._of_users.reading("exposures") as txn:
            return [Exposure(*json.loads(value)) for _, value in _of_user(txn.cursor(), user_id)]

    def forget(self, txn: lmdb.Transaction, user_id: str) -> None:
        """Deletes a user's exposures, in the transaction that deletes the user."""
        for key, _ in _of_user(txn.cursor(self._exposures), user_id):
            txn.delete(key, db=self._exposures)


def open_own(store_folder: Path) -> LmdbEnvironment:
    """The environment of documents and reports, in a folder inside the store's.

    Raises:
        StoreUnavailable: the folder cannot be used.
    """
    folder = store_folder / "control"
    return LmdbEnvironment(
        folder,
        map_bytes=MAP_MIB << 20,
        databases=("documents", "reports"),
        when_full=f"{folder}: documents and reports have filled their {MAP_MIB} MiB",
    )


def user_digest(user_id: str) -> bytes:
    """16 bytes that stand for a user in keys: an id may hold any byte, so none could mark its end."""
    return blake2b(user_key(user_id), digest_size=_DIGEST_BYTES).digest()


def _of_user(cursor: lmdb.Cursor, user_id: str) -> list[tuple[bytes, bytes]]:
    digest = user_digest(user_id)
    found: list[tuple[bytes, bytes]] = []
    if cursor.set_range(digest):
        for key, value in cursor:
            if bytes(key[:_DIGEST_BYTES]) != digest:
                break
            found.append((bytes(key), bytes(value)))
    return found


def _document(value: bytes | memoryview | None) -> Document:
    if value is None:
        return Document(0, b"")
    return Document(_REVISION.unpack_from(value)[0], bytes(value[_REVISION.size :]))
