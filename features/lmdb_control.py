"""The `ControlStore` of the embedded store: three more databases beside those of the users."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Sequence
from hashlib import blake2b

import lmdb

from features.control import Document, Exposure, experiment_of
from features.lmdb_environment import LmdbEnvironment, user_key

DATABASES = ("documents", "reports", "exposures")

_REVISION = struct.Struct("<q")
_DIGEST_BYTES = 16


class LmdbControl:
    """Documents, reports and exposures in an environment that the users' store has opened."""

    def __init__(self, environment: LmdbEnvironment) -> None:
        self._environment = environment
        self._users = environment.databases["users"]
        self._documents, self._reports, self._exposures = (environment.databases[name] for name in DATABASES)

    async def read_document(self, name: str) -> Document:
        with self._environment.reading("documents") as txn:
            return _document(txn.get(name.encode()))

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        def change(txn: lmdb.Transaction) -> bool:
            if _document(txn.get(name.encode(), db=self._documents)).revision != revision:
                return False
            txn.put(name.encode(), _REVISION.pack(revision + 1) + value, db=self._documents)
            return True

        replaced: bool = await self._environment.write(change)
        return replaced

    async def put_report(self, source: str, value: bytes) -> None:
        await self._environment.write(lambda txn: txn.put(source.encode(), value, db=self._reports))

    async def reports(self) -> dict[str, bytes]:
        with self._environment.reading("reports") as txn:
            return {bytes(source).decode(): bytes(value) for source, value in txn.cursor()}

    async def drop_reports(self, sources: Collection[str]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for source in sources:
                txn.delete(source.encode(), db=self._reports)

        if sources:
            await self._environment.write(change)

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        def change(txn: lmdb.Transaction) -> None:
            for exposure in exposures:
                if txn.get(user_key(exposure.user_id), db=self._users) is None:
                    continue
                key = user_digest(exposure.user_id) + experiment_of(exposure.arm).encode()
                value = json.dumps([exposure.user_id, exposure.arm, exposure.at]).encode()
                txn.put(key, value, overwrite=False, db=self._exposures)

        await self._environment.write(change)

    async def exposures(self, experiment: str) -> list[Exposure]:
        name = experiment.encode()
        with self._environment.reading("exposures") as txn:
            return [
                Exposure(*json.loads(bytes(value)))
                for key, value in txn.cursor()
                if bytes(key[_DIGEST_BYTES:]) == name
            ]

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        with self._environment.reading("exposures") as txn:
            return [Exposure(*json.loads(value)) for _, value in _of_user(txn.cursor(), user_id)]

    def forget(self, txn: lmdb.Transaction, user_id: str) -> None:
        """Deletes a user's exposures, in the transaction that deletes the user."""
        for key, _ in _of_user(txn.cursor(self._exposures), user_id):
            txn.delete(key, db=self._exposures)


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
