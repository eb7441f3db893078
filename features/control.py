"""What the online store keeps beside users, for running versions of a model: documents, reports, exposures.

Errors are those of `features.store`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """A small value that several processes change in turn."""

    revision: int
    """Goes up with every change; 0: there is none."""
    value: bytes


@dataclass(frozen=True, slots=True)
class Exposure:
    """A user who has met an arm of an experiment."""

    user_id: str
    arm: str
    """As `features.traffic.Experiment.arms` name it."""
    at: int
    """The first time, Unix seconds."""


class ControlStore(Protocol):
    """What Riptide needs to run versions.

    Every method raises `StoreUnavailable` if the store cannot answer, and those that write `StoreFull` if
    there is no room; nothing is written then.
    """

    async def read_document(self, name: str) -> Document:
        """The document as it is now; revision 0 and no value if there is none."""

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        """Replaces the document if it is still at `revision`; whether it did. Durable on return."""

    async def put_report(self, source: str, value: bytes) -> None:
        """Replaces what `source`, one process, has reported."""

    async def reports(self) -> dict[str, bytes]:
        """The last report of every source, by source."""

    async def drop_reports(self, sources: Collection[str]) -> None:
        """Forgets the reports of sources that are no more."""

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        """Notes who has met which arm. Of a user's exposures to an experiment the first one stays.

        A user without a record is left out: they have been forgotten since.
        """

    async def exposures(self, experiment: str) -> list[Exposure]:
        """All exposures to an experiment, in no particular order. A forgotten user is not among them."""

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        """All exposures of one user."""


def experiment_of(arm: str) -> str:
    """The experiment that an arm belongs to."""
    return arm.rpartition("/")[0]
