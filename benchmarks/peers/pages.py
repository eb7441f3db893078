"""What every peer serves: the same SavedModel, store and catalogue as the gateway, in its own process.

The parts are ours: record, model inputs, the callable that runs the SavedModel in Triton's backend, the page.
What differs between peers is what stands between a caller and `Pages.of`. A peer uses the vectors that a
gateway on the same store has kept, and asks for no new ones.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog
from features.lmdb_store import LmdbStore
from features.record import EMPTY_RECORD, UserRecord
from gateway.fit import Tensor, read_manifest
from gateway.model_inputs import Row, model_inputs
from gateway.page import PageItem, PageRequest, model_page
from gateway.wire import Lines

if TYPE_CHECKING:  # it imports what a peer's environment need not have
    from gateway.versions import ServingVersion

_WIDTHS = {
    "history_keys": "T",
    "history_times": "T",
    "history_types": "T",
    "user_features": "F",
    "user_vector": "D",
    "allowed_categories": "C",
}
_OUTPUTS = ("item_keys", "scores")
_WARM = (1, 8, 32, 64)


class Asked(NamedTuple):
    """One request."""

    user_id: str
    limit: int


@dataclass(frozen=True, slots=True)
class _Version:
    """What is used of a `gateway.versions.ServingVersion`."""

    name: str
    version: int
    inputs: Mapping[str, Tensor]
    catalog: Catalog
    attributes: tuple[str, ...]
    consumes: NDArray[np.bool_] | None
    counts: NDArray[np.bool_] | None


class Best(NamedTuple):
    """A page before anything is known of its items."""

    keys: list[int]
    scores: list[float]


_ASKED = PageRequest("", 1)
"""Peers are asked for unfiltered pages alone; how many lines are wanted, the model need not know."""


class Pages:
    """Answers batches. Safe to use from one thread at a time."""

    def __init__(self, version: Path, store: Path, *, threads: int = 1) -> None:
        """Loads the model and runs it once in each of some batch sizes.

        Args:
            version: folder of a published version.
            store: folder of an LMDB store.
            threads: of TensorFlow within an operation; one is what Triton is given, too.
        """
        # TensorFlow is imported here, not by whoever wants the types.
        from inference.tensorflow_backend.savedmodel import SavedModel, open_session

        said = read_manifest(version / "manifest.json")
        inputs = {name: Tensor("", said.widths.get(_WIDTHS.get(name, ""), 1)) for name in sorted(said.inputs)}
        number = json.loads((version / "manifest.json").read_text(encoding="utf-8"))["version"]
        catalog = Catalog(version / "catalog.lmdb")
        self._version = _Version("peer", number, inputs, catalog, said.attributes, said.consumes, said.counts)
        self._lines = Lines().of(catalog)
        self._store = LmdbStore(store, history_cap=1024, map_bytes=8 << 30)
        session = open_session(intra_op_threads=threads, inter_op_threads=1)
        self._model = SavedModel(
            str(version / "model.savedmodel"), "recommend", session, on_calling_thread=True
        )
        self._loop = asyncio.new_event_loop()
        for size in _WARM:
            self.scored([Asked("nobody", 10)] * size, [EMPTY_RECORD] * size)

    async def read(self, asked: Sequence[Asked]) -> list[UserRecord]:
        """The records of those who ask; it does not wait for anything."""
        return await self._store.read([one.user_id for one in asked])

    def best(self, asked: Sequence[Asked], records: Sequence[UserRecord]) -> list[Best]:
        """What the model answers each, best item first."""
        rows = [self._row(record) for record in records]
        inputs = model_inputs(cast("ServingVersion", self._version), rows, int(time.time()))
        answer = self._model.run([inputs[name] for name in self._model.inputs], _OUTPUTS)
        most = max(one.limit for one in asked)
        keys, scores = answer["item_keys"][:, :most].tolist(), answer["scores"][:, :most].tolist()
        return [
            Best(own[: one.limit], values[: one.limit])
            for one, own, values in zip(asked, keys, scores, strict=True)
        ]

    def as_lines(self, best: Best) -> bytes:
        """The gateway's own bytes of a page, for a peer that can send them."""
        return self._lines.scored(best.keys, best.scores)

    def scored(self, asked: Sequence[Asked], records: Sequence[UserRecord]) -> list[list[PageItem]]:
        """A page for each, for peers that write it their own way."""
        catalog = self._version.catalog
        return [model_page(catalog, one.keys, one.scores, None) for one in self.best(asked, records)]

    def of(self, asked: Sequence[Asked]) -> list[list[PageItem]]:
        """Read and score, for servers that are not asynchronous."""
        return self.scored(asked, self._loop.run_until_complete(self.read(asked)))

    def _row(self, record: UserRecord) -> Row:
        answer = record.fresh_answer
        if answer is not None and answer.version != self._version.version:
            answer = None
        return Row(record, answer, _ASKED)


def as_message(page: Sequence[PageItem]) -> pb.RecommendResponse:
    """For peers that speak gRPC."""
    return pb.RecommendResponse(
        items=[
            pb.RecommendedItem(
                item_id=line.item.item_id,
                score=line.score,
                rank=rank,
                title=line.item.title,
                categories=line.item.categories,
            )
            for rank, line in enumerate(page, 1)
        ]
    )


def as_json(page: Sequence[PageItem]) -> dict[str, Any]:
    """For peers that speak JSON."""
    return {
        "items": [
            {
                "item_id": line.item.item_id,
                "score": float(line.score),
                "rank": rank,
                "title": line.item.title,
                "categories": list(line.item.categories),
            }
            for rank, line in enumerate(page, 1)
        ]
    }
