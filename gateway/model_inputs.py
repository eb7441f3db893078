"""Filling the inputs that a version wants, for a whole batch at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog
from features.model_inputs import left_padded
from features.record import CachedAnswer, UserRecord

if TYPE_CHECKING:
    from gateway.versions import ServingVersion

FILLABLE_INPUTS: dict[str, str] = {
    "history_keys": "INT64",
    "history_times": "INT64",
    "request_time": "INT64",
    "user_vector": "FP32",
    "user_vector_fresh": "INT32",
    "exclude_keys": "INT64",
    "allowed_categories": "BOOL",
}
"""The inputs this gateway can fill, with Triton's name of their type."""

FREE_WIDTH_INPUTS = frozenset({"exclude_keys"})
"""Those that are as wide as a call needs; the others have a width that is the version's own."""

_WIDTH_STEP = 64
"""Free widths are multiples of this: Triton joins calls of several workers only if they are equally wide."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the model needs to know of one request."""

    record: UserRecord
    answer: CachedAnswer | None
    """A cached answer that is fresh and of the version that is called."""
    categories: tuple[str, ...]
    """Empty: no filter."""
    excluded: tuple[int, ...]
    include_seen: bool


def knows_any(catalog: Catalog, record: UserRecord) -> bool:
    """Whether the catalogue has an item of the user's history: else the model has nothing to go by."""
    # The newest first: almost always the first look answers.
    return any(int(key) in catalog for key in record.keys[::-1])


def model_inputs(version: ServingVersion, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
    """The inputs of `rows`, those that `version` lists and no others.

    Returns:
        name → `[len(rows), width]`, with the types and widths of `version.inputs`.
    """
    return {name: _FILL[name](rows, tensor.width, version.catalog) for name, tensor in version.inputs.items()}


def _history_keys(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    return left_padded([row.record.keys for row in rows], width, np.int64)


def _history_times(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    return left_padded([row.record.times for row in rows], width, np.int64)


def _request_time(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    return np.full((len(rows), width), int(time.time()), np.int64)


def _user_vector(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    vectors = np.zeros((len(rows), width), np.float32)
    for vector, row in zip(vectors, rows, strict=True):
        if row.answer is not None:
            vector[:] = row.answer.vector
    return vectors


def _user_vector_fresh(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    return np.array([[row.answer is not None] for row in rows], np.int32)


def _exclude_keys(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    sizes = [len(row.excluded) + (0 if row.include_seen else len(row.record.keys)) for row in rows]
    steps = -(-max(sizes) // _WIDTH_STEP)
    keys = np.zeros((len(rows), max(1, steps) * _WIDTH_STEP), np.int64)
    for slots, row in zip(keys, rows, strict=True):
        asked = len(row.excluded)
        if asked:
            slots[:asked] = row.excluded
        if not row.include_seen:
            slots[asked : asked + len(row.record.keys)] = row.record.keys
    return keys


def _allowed_categories(rows: Sequence[Row], width: int, catalog: Catalog) -> NDArray[Any]:
    allowed = np.ones((len(rows), width), np.bool_)
    for slots, row in zip(allowed, rows, strict=True):
        if row.categories:
            slots[:] = False  # the last one, too: it is that of the items without a category
            # The version may have changed since the names were checked: one that it lacks matches nothing.
            known = [
                index for name in row.categories if (index := catalog.category_index.get(name)) is not None
            ]
            slots[known] = True
    return allowed


_FILL = {
    "history_keys": _history_keys,
    "history_times": _history_times,
    "request_time": _request_time,
    "user_vector": _user_vector,
    "user_vector_fresh": _user_vector_fresh,
    "exclude_keys": _exclude_keys,
    "allowed_categories": _allowed_categories,
}
