"""Items that join a finished model without training: what is known of them gives them a vector.

What items files have told since the training is kept in the export's `added.parquet`, one row per item:

    item_id string, title string, categories list<string>, text string, published int64 (unix s; 0: not told),
    embedding:<name> list<float32>, riptide:added int64 (unix s; 0: the model was trained with the item)

A new item stands behind all others, in the order in which items came. Its vector and level are what the model
has learned to expect of its words, categories and vectors (`training.cold_items`); nobody took it yet; it is
as old as its publication, or else as its addition. An item that is in the catalogue already is left alone if
the file tells nothing new of it. Else what is shown of it, and what it is filtered by, is what the file says
now, and so is its time; its vector is made anew only if it has no history: one that was learned from what
people took knows more than a description. A time or a vector that the file leaves empty stays what it was. No
item is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.data_config import VECTOR_PREFIX
from training.dataset import Prepared
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.trained import Trained

_ADDED = "riptide:added"
"""A name that no column of an items file has."""


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item as an items file tells of it."""

    item: CatalogItem
    text: str
    vectors: Mapping[str, tuple[float, ...]]
    """By name; without those that are empty or zero."""
    added: int = 0
    """Unix seconds, 0: the model was trained with the item."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What items files have told since the training, the newest one included."""

    rows: tuple[ItemRow, ...]
    new: int
    """Items of the newest file that the catalogue did not have."""
    changed: int
    """Items that it had, and of which the file tells something else."""
    same: int
    """Items of which it tells nothing new."""


def read_rows(path: Path, prepared: Prepared) -> tuple[ItemRow, ...]:
    """The rows of an items.parquet or added.parquet, in its order. Vectors that `prepared` does not have, so
    that no model knows them, are left out.

    Raises:
        TrainingError: the vectors have another width than those of `prepared`.
    """
    names = pq.read_schema(path).names
    vectors = [name for name in prepared.item_vectors if VECTOR_PREFIX + name in names]
    columns = [VECTOR_PREFIX + name for name in vectors] + [_ADDED] * (_ADDED in names)
    table = pq.read_table(path, columns=["item_id", "title", "categories", "text", "published", *columns])
    rows = []
    for row in table.to_pylist():
        own = {name: tuple(row[VECTOR_PREFIX + name] or ()) for name in vectors}
        for name, vector in own.items():
            width = prepared.item_vectors[name].shape[1]
            if vector and len(vector) != width:
                raise TrainingError(
                    f"column '{VECTOR_PREFIX}{name}' holds vectors of {len(vector)} numbers, and the "
                    f"model was trained with {width}"
                )
        rows.append(
            ItemRow(
                CatalogItem(
                    row["item_id"], row["title"], tuple(row["categories"] or ()), row["published"] or 0
                ),
                row["text"],
                {name: vector for name, vector in own.items() if any(vector)},
                row.get(_ADDED, 0),
            )
        )
    return tuple(rows)


def write_rows(path: Path, rows: Sequence[ItemRow], prepared: Prepared) -> None:
    """Writes added.parquet."""
    strings = pa.string()
    columns = {
        "item_id": pa.array([row.item.item_id for row in rows], strings),
        "title": pa.array([row.item.title for row in rows], strings),
        "categories": pa.array([list(row.item.categories) for row in rows], pa.list_(strings)),
        "text": pa.array([row.text for row in rows], strings),
        "published": pa.array([row.item.published for row in rows], pa.int64()),
        _ADDED: pa.array([row.added for row in rows], pa.int64()),
    }
    for name in prepared.item_vectors:
        vectors = [row.vectors.get(name) for row in rows]
        columns[VECTOR_PREFIX + name] = pa.array(vectors, pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), path)


def merge(prepared: Prepared, earlier: Sequence[ItemRow], given: Sequence[ItemRow], now: int) -> Merged:
    """What was told earlier, brought up to date with what is given now.

    Args:
        now: unix seconds, when new items are added.
    """
    base = {item.item_id: i for i, item in enumerate(prepared.items)}
    rows = {row.item.item_id: row for row in earlier}
    new = changed = same = 0
    for row in given:
        item_id = row.item.item_id
        known = rows.get(item_id) or (_base_row(prepared, base[item_id]) if item_id in base else None)
        if known is None:
            rows[item_id] = replace(row, added=now)
            new += 1
            continue
        told = replace(
            row,
            item=replace(row.item, published=row.item.published or known.item.published),
            vectors={**known.vectors, **row.vectors},
            added=known.added,
        )
        if told == known:
            same += 1
        else:
            rows[item_id] = told
            changed += 1
    return Merged(tuple(rows.values()), new, changed, same)


def extended(
    trained: Trained, prepared: Prepared, rows: Sequence[ItemRow], cache: Path
) -> tuple[tuple[CatalogItem, ...], Trained]:
    """The catalogue and the model with the rows of added.parquet in them; the items of `prepared` come first,
    in the same order.

    Args:
        cache: where text encoders and the vectors of texts are kept.

    Raises:
        TrainingError: there are new items, and the model has no mapping to give them vectors.
        NoTextEncoder: the text encoder cannot be had.
    """
    from training.cold_items import ItemVectors
    from training.item_features import ItemInputs

    facts, index_of = trained.facts, {item.item_id: i for i, item in enumerate(prepared.items, start=1)}
    catalogue, at = list(prepared.items), np.zeros(len(rows), np.int64)
    for i, row in enumerate(rows):
        at[i] = index_of.get(row.item.item_id, len(catalogue) + 1)
        catalogue[at[i] - 1 : at[i]] = [row.item]  # in the place of the item there, or at the end
    grown = len(catalogue) - len(prepared.items)
    if grown and trained.mapping is None:
        raise TrainingError(
            "the model has not learned which vectors go with which words, categories and vectors of items "
            "(fewer than 50 items have a history, or nothing is known of items), so new items could not be "
            "given vectors; put them into the items file and run `make train`"
        )
    inputs = _inputs(trained, prepared, rows, cache)
    values = np.pad(facts.items.values, ((0, grown), (0, 0)))
    values[at] = inputs
    had = np.pad(facts.items.had, (0, grown))
    published, times = np.pad(facts.published, (0, grown)), np.pad(facts.item_times, (0, grown))
    for index, row in zip(at.tolist(), rows, strict=True):
        published[index] = row.item.published
        if row.added or row.item.published > 0:
            times[index] = row.item.published or row.added
    vectors = np.pad(trained.items.vectors, ((0, grown), (0, 0)))
    levels = np.pad(trained.items.levels, (0, grown))
    cold = ~had[at]
    if trained.mapping is not None and cold.any():
        vectors[at[cold]] = trained.mapping(inputs[cold])
        levels[at[cold]] = trained.mapping.level
    facts = replace(
        facts,
        items=ItemInputs(values, had),
        item_users=np.pad(facts.item_users, (0, grown)),
        published=published,
        item_times=times,
    )
    return tuple(catalogue), replace(trained, facts=facts, items=ItemVectors(vectors, levels))


def _inputs(
    trained: Trained, prepared: Prepared, rows: Sequence[ItemRow], cache: Path
) -> NDArray[np.float32]:
    """float32 `[n, P]`: the features of the rows, in the columns that the model was trained with."""
    from training.item_features import item_inputs

    vectors = {}
    for name, trained_with in prepared.item_vectors.items():
        vectors[name] = np.zeros((len(rows), trained_with.shape[1]), np.float32)
        for i, row in enumerate(rows):
            if name in row.vectors:
                vectors[name][i] = row.vectors[name]
    nobody = np.zeros(len(rows), np.int64)
    items, texts = [row.item for row in rows], [row.text for row in rows]
    config = trained.facts.config.model
    return item_inputs(config, items, texts, vectors, prepared.categories, nobody, cache).values[1:]


def _base_row(prepared: Prepared, i: int) -> ItemRow:
    vectors = {name: tuple(rows[i].tolist()) for name, rows in prepared.item_vectors.items() if rows[i].any()}
    return ItemRow(prepared.items[i], prepared.item_texts[i], vectors)
