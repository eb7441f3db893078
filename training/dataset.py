"""Prepared data as training and evaluation read it: the catalogue, what is known of its items, and histories
streamed from Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.catalog import CatalogItem
from features.schema import EventType, item_keys
from training.data_config import VECTOR_PREFIX
from training.errors import TrainingError
from training.model_config import BehaviourConfig
from training.user_log import Exposures, History, read_exposures, read_histories

__all__ = ["Exposures", "History", "Prepared", "open_prepared"]

_VECTORS_PER_READ = 4_096


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared data folder, open for reading. Without slots, so that what costs reading is read once, when
    it is first asked for."""

    folder: Path
    fingerprint: str
    """sha256 of the inputs, the column mapping and the forgotten users among the log's."""
    items: tuple[CatalogItem, ...]
    """Item i of the catalogue has index i + 1 in a model."""
    categories: tuple[str, ...]
    """In order of name: the `allowed_categories` axis."""
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    """Which events count, and which consume their item."""

    @property
    def events_path(self) -> Path:
        """The Parquet file, sorted by user_id, time, item_id."""
        return self.folder / "events.parquet"

    def event_count(self) -> int:
        """Events of all users."""
        return int(pq.read_metadata(self.events_path).num_rows)

    def histories(self) -> Iterator[History]:
        """Every user's history, in order of user id; one pass, with a record batch in memory at a time.

        Without the events of types that do not count, and without the users who have no others.
        """
        users, behaviour = self.folder / "users.parquet", self.behaviour
        kept = np.array(behaviour.type_weights()) > 0
        consumes = None
        if behaviour.consumes is not None:
            consumes = frozenset(int(EventType[name]) for name in behaviour.consumes)
        for history in read_histories(self.events_path, self._index_of, self.keys, users, self.attributes):
            counting = history if kept.all() else history.where(kept[history.types])
            if len(counting):
                yield replace(counting, consumes=consumes)

    def exposures(self) -> Iterator[Exposures]:
        """What every user was shown to no effect, in order of user id, as `histories`; nothing if the log
        does not tell."""
        return read_exposures(self.folder / "exposures.parquet", self._index_of)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """Names of the users' attributes, in alphabetical order: the axis of `History.features`."""
        users = self.folder / "users.parquet"
        return tuple(sorted({*pq.read_schema(users).names} - {"user_id"})) if users.exists() else ()

    @cached_property
    def item_texts(self) -> tuple[str, ...]:
        """`[N]`, what a language model reads of each item: title, categories and further text columns."""
        return tuple(self._items_column("text").to_pylist())

    @cached_property
    def item_vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """float32 `[N, w]` by name: what `embedding:<name>` of the items file holds, a row of zeros for an
        item without. Names are in alphabetical order; one of which no item has a vector is left out."""
        file = pq.ParquetFile(self.folder / "items.parquet")
        names = sorted(name for name in file.schema_arrow.names if name.startswith(VECTOR_PREFIX))
        vectors = {name.removeprefix(VECTOR_PREFIX): _vectors(file, name) for name in names}
        return {name: rows for name, rows in vectors.items() if rows is not None}

    @cached_property
    def published(self) -> NDArray[np.int64]:
        """int64 `[N]`, unix seconds of when each item was published; 0 where the items file does not say."""
        return np.array([item.published for item in self.items], np.int64)

    @cached_property
    def _index_of(self) -> pa.Array:
        return pa.array([item.item_id for item in self.items], pa.string())

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """int64 `[N]`, `item_key` of each item."""
        return item_keys(item.item_id for item in self.items)

    def _items_column(self, name: str) -> pa.ChunkedArray:
        return pq.read_table(self.folder / "items.parquet", columns=[name])[name]


def open_prepared(folder: Path, behaviour: BehaviourConfig | None = None) -> Prepared:
    """Reads the catalogue of a prepared data folder.

    Raises:
        TrainingError: the folder is not there or not complete.
    """
    try:
        fingerprint = str(json.loads((folder / "report.json").read_text(encoding="utf-8"))["fingerprint"])
        columns = ["item_id", "title", "categories", "published"]
        table = pq.read_table(folder / "items.parquet", columns=columns).to_pylist()
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise TrainingError(
            f"{folder}: no prepared data here, run `python -m training prepare` ({error})"
        ) from error
    items = tuple(
        CatalogItem(r["item_id"], r["title"], tuple(r["categories"] or ()), r["published"] or 0)
        for r in table
    )
    categories = tuple(sorted({category for item in items for category in item.categories}))
    return Prepared(folder, fingerprint, items, categories, behaviour or BehaviourConfig())


def _vectors(file: pq.ParquetFile, column: str) -> NDArray[np.float32] | None:
    """float32 `[N, w]`, or None if no row has a vector."""
    vectors: NDArray[np.float32] | None = None
    end = 0
    for batch in file.iter_batches(_VECTORS_PER_READ, columns=[column]):
        start, end = end, end + len(batch)
        present = batch[column].is_valid().to_numpy(zero_copy_only=False)
        if not present.any():
            continue
        rows = batch[column].flatten().to_numpy().reshape(np.count_nonzero(present), -1)
        if vectors is None:
            vectors = np.zeros((file.metadata.num_rows, rows.shape[1]), np.float32)
        vectors[start:end][present] = rows
    return vectors
