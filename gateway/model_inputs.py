"""Filling the inputs that a version wants, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from features.model_inputs import left_padded
from features.record import CachedAnswer, UserRecord
from features.schema import feature_key, surface_key
from gateway.page import PageRequest

if TYPE_CHECKING:
    from gateway.versions import ServingVersion

FILLABLE_INPUTS: dict[str, str] = {
    "history_keys": "INT64",
    "history_times": "INT64",
    "history_types": "INT32",
    "request_time": "INT64",
    "user_features": "INT64",
    "surface": "INT64",
    "user_vector": "FP32",
    "user_vector_fresh": "INT32",
    "exclude_keys": "INT64",
    "allowed_categories": "BOOL",
    "diversity": "FP32",
}
"""The inputs this gateway can fill, with Triton's name of their type."""

FREE_WIDTH_INPUTS = frozenset({"exclude_keys"})
"""Those that are as wide as a call needs; the others have a width that is the version's own."""

ENCODER_INPUTS = frozenset(
    {"history_keys", "history_times", "history_types", "request_time", "user_features"}
)
"""What a user's vector is computed from."""

_NONE = np.empty(0, np.int64)
_WIDTH_STEP = 64
"""Free widths are multiples of this: Triton joins calls of several workers only if they are equally wide."""


class Row(NamedTuple):
    """What the model needs to know of one request."""

    record: UserRecord
    answer: CachedAnswer | None
    """A cached answer of the version that is called, whose vector may be used."""
    request: PageRequest
    behind: bool = False
    """Whether that vector lags behind the user."""
    stale: bool = False
    """Whether it lags by more than it may, since the encoder did not follow."""


def knows(version: ServingVersion, record: UserRecord) -> bool:
    """Whether the version knows an item of the history that it reads, or takes an attribute of the user.

    Else the model has nothing to go by.
    """
    # A vector of the version that covers the whole record says that it did: almost every call ends here.
    answer = record.answer
    if answer is not None and answer.version == version.version and answer.revision == record.revision:
        return True
    # The newest first: almost always the first look answers.
    if any(int(key) in version.catalog for key in record.counting(version.counts).keys[::-1]):
        return True
    if not record.attributes_json or "user_features" not in version.inputs:
        return False
    return not record.attributes.keys().isdisjoint(version.attributes)


def model_inputs(
    version: ServingVersion, rows: Sequence[Row], now: int, only: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """The inputs of `rows`, those that `version` lists and no others; with `only`, no others than these.

    `now`: Unix seconds, the moment of rows that name none.

    Returns:
        name → `[len(rows), width]`, with the types and widths of `version.inputs`.
    """
    histories = [row.record.counting(version.counts) for row in rows]
    batch = _Batch(rows, histories, version, now)
    return {
        name: _FILL[name](batch, tensor.width)
        for name, tensor in version.inputs.items()
        if only is None or name in only
    }


class _Batch(NamedTuple):
    rows: Sequence[Row]
    histories: Sequence[UserRecord]
    """Of each row, what the version is told of it."""
    version: ServingVersion
    now: int


def _history_keys(batch: _Batch, width: int) -> NDArray[Any]:
    return left_padded([history.keys for history in batch.histories], width, np.int64)


def _history_times(batch: _Batch, width: int) -> NDArray[Any]:
    return left_padded([history.times for history in batch.histories], width, np.int64)


def _history_types(batch: _Batch, width: int) -> NDArray[Any]:
    return left_padded([history.types for history in batch.histories], width, np.int32)


def _request_time(batch: _Batch, width: int) -> NDArray[Any]:
    return _column([row.request.time or batch.now for row in batch.rows], np.int64)


def _user_features(batch: _Batch, width: int) -> NDArray[Any]:
    features = np.zeros((len(batch.rows), width), np.int64)
    for place, row in enumerate(batch.rows):
        if batch.version.attributes and row.record.attributes_json:
            values = row.record.attributes
            for slot, name in enumerate(batch.version.attributes):
                if name in values:
                    features[place, slot] = feature_key(name, values[name])
    return features


def _surface(batch: _Batch, width: int) -> NDArray[Any]:
    return _column([surface_key(row.request.surface) for row in batch.rows], np.int64)


def _diversity(batch: _Batch, width: int) -> NDArray[Any]:
    return _column([row.request.diversity for row in batch.rows], np.float32)


def _user_vector(batch: _Batch, width: int) -> NDArray[Any]:
    none = np.zeros(width, np.float32)
    vectors = [none if row.answer is None else row.answer.vector for row in batch.rows]
    return np.concatenate(vectors).reshape(len(vectors), width)


def _user_vector_fresh(batch: _Batch, width: int) -> NDArray[Any]:
    return _column([row.answer is not None for row in batch.rows], np.int32)


def _exclude_keys(batch: _Batch, width: int) -> NDArray[Any]:
    consumes = batch.version.consumes
    seen = [_NONE if row.request.include_seen else row.record.consumed(consumes) for row in batch.rows]
    size = max(len(row.request.excluded) + len(own) for row, own in zip(batch.rows, seen, strict=True))
    keys = np.zeros((len(batch.rows), max(1, -(-size // _WIDTH_STEP)) * _WIDTH_STEP), np.int64)
    for place, (row, own) in enumerate(zip(batch.rows, seen, strict=True)):
        if unwanted := len(row.request.excluded):
            keys[place, :unwanted] = row.request.excluded
        keys[place, unwanted : unwanted + len(own)] = own
    return keys


def _allowed_categories(batch: _Batch, width: int) -> NDArray[Any]:
    allowed = np.ones((len(batch.rows), width), np.bool_)
    for place, row in enumerate(batch.rows):
        if categories := row.request.categories:
            allowed[place] = False  # the last one, too: it is that of the items without a category
            # The version may have changed since the names were checked: one that it lacks matches nothing.
            indexes = map(batch.version.catalog.category_index.get, categories)
            allowed[place, [index for index in indexes if index is not None]] = True
    return allowed


def _column(values: Sequence[Any], dtype: DTypeLike) -> NDArray[Any]:
    """One value a row."""
    return np.array(values, dtype).reshape(-1, 1)


_FILL = {
    "history_keys": _history_keys,
    "history_times": _history_times,
    "history_types": _history_types,
    "request_time": _request_time,
    "user_features": _user_features,
    "surface": _surface,
    "user_vector": _user_vector,
    "user_vector_fresh": _user_vector_fresh,
    "exclude_keys": _exclude_keys,
    "allowed_categories": _allowed_categories,
    "diversity": _diversity,
}
