"""A control store in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from features.control import Document, Exposure, experiment_of


class FakeControl:
    """A `ControlStore` that forgets all when it goes."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.written: dict[str, bytes] = {}
        self.exposed: dict[tuple[str, str], Exposure] = {}

    async def read_document(self, name: str) -> Document:
        return self.documents.get(name, Document(0, b""))

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        if (await self.read_document(name)).revision != revision:
            return False
        self.documents[name] = Document(revision + 1, value)
        return True

    async def put_report(self, source: str, value: bytes) -> None:
        self.written[source] = value

    async def reports(self) -> dict[str, bytes]:
        return dict(self.written)

    async def drop_reports(self, sources: Collection[str]) -> None:
        for source in sources:
            self.written.pop(source, None)

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        for exposure in exposures:
            self.exposed.setdefault((exposure.user_id, experiment_of(exposure.arm)), exposure)

    async def exposures(self, experiment: str) -> list[Exposure]:
        return [exposure for (_, name), exposure in self.exposed.items() if name == experiment]

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        return [exposure for (user, _), exposure in self.exposed.items() if user == user_id]
