"""A control store in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from features.control import Document, Exposure
from features.store import StoreUnavailable


class FakeControl:
    """A `ControlStore` in dictionaries; `fails` makes every call fail."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.written: dict[str, bytes] = {}
        self.exposed: list[Exposure] = []
        self.fails = False

    def _check(self) -> None:
        if self.fails:
            raise StoreUnavailable("told to fail")

    async def read_document(self, name: str) -> Document:
        self._check()
        return self.documents.get(name, Document(0, b""))

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        self._check()
        if self.documents.get(name, Document(0, b"")).revision != revision:
            return False
        self.documents[name] = Document(revision + 1, value)
        return True

    async def put_report(self, source: str, value: bytes) -> None:
        self._check()
        self.written[source] = value

    async def reports(self) -> dict[str, bytes]:
        self._check()
        return dict(self.written)

    async def drop_reports(self, sources: Collection[str]) -> None:
        self._check()
        for source in sources:
            self.written.pop(source, None)

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        self._check()
        self.exposed.extend(exposures)

    async def exposures(self, experiment: str) -> list[Exposure]:
        self._check()
        return [one for one in self.exposed if one.arm.startswith(f"{experiment}/")]

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        self._check()
        return [one for one in self.exposed if one.user_id == user_id]
