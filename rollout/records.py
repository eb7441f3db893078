"""Reading and changing the records of rollouts, one compare-and-set at a time."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from features.control import ControlStore
from features.traffic import document_name
from rollout.errors import BadRecord
from rollout.state import Rollout


class Records:
    """Reads and changes the record of one model."""

    def __init__(self, control: ControlStore, model: str) -> None:
        self.control = control
        """Where the record is."""
        self._name = document_name(model)

    async def read(self) -> tuple[Rollout | None, int]:
        """The record and its revision; None and 0 if there is none.

        Raises:
            BadRecord: it cannot be read as one.
            StoreUnavailable: the store does not answer.
        """
        document = await self.control.read_document(self._name)
        if not document.revision:
            return None, 0
        try:
            return Rollout.model_validate_json(document.value), document.revision
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or "the record"
            raise BadRecord(f"the rollout record of this store: {field}: {problem['msg']}") from error

    async def replace(self, rollout: Rollout, revision: int) -> bool:
        """Writes the record if it is still at `revision`; whether it did."""
        return await self.control.replace_document(self._name, rollout.model_dump_json().encode(), revision)

    async def change(self, make: Callable[[Rollout | None], Rollout]) -> Rollout:
        """Replaces the record by what `make` makes of it, made anew as often as somebody else was faster.

        Raises:
            NotPossible: from `make`, of the record as it is now; nothing was changed.
        """
        while True:
            before, revision = await self.read()
            after = make(before)
            if await self.replace(after, revision):
                return after
