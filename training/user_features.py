"""Which values of the users' attributes a model knows, and which of them count as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.schema import feature_key

MIN_USERS = 5
"""A value that fewer users have says too little of them, and may point to one of them: it counts as none."""
_NUMBER_BINS = 8
"""An attribute of numbers, such as an age, is cut into this many bins with as many users in each."""
_FILLED = 10_000
"""Widest bin of whole numbers that is known in full; of others only what was seen is."""
_FEW_VALUES = 16
"""Up to this many different numbers are left as they are: they may well be codes."""


@dataclass(frozen=True, slots=True, eq=False)
class UserVocabulary:
    """From the key of an attribute's value to a row of the model's table; row 0 is no value, or an unknown
    one."""

    keys: NDArray[np.int64]
    """`[V]`, ascending, `features.schema.feature_key`; at least one."""
    rows: NDArray[np.int32]
    """`[V]`, from 1; several keys may share one."""
    attributes: int
    """F, at least 1: a model without attributes has one slot that is always empty."""

    @property
    def size(self) -> int:
        """Rows of the table, the empty one included."""
        return int(self.rows.max(initial=0)) + 1

    def of_users(self, features: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
        """The rows of users' attributes, int32 `[B, attributes]`, from `History.features` of each."""
        if self.size == 1:  # a model without attributes, whatever there is in the file
            return np.zeros((len(features), self.attributes), np.int32)
        return self.index(np.stack(features))

    def index(self, features: NDArray[np.int64]) -> NDArray[np.int32]:
        """The rows of keys, int32 of the same shape."""
        at = np.minimum(np.searchsorted(self.keys, features), len(self.keys) - 1)
        rows: NDArray[np.int32] = np.where(self.keys[at] == features, self.rows[at], 0).astype(np.int32)
        return rows


def no_attributes() -> UserVocabulary:
    """Of a model that knows nothing of users but what they did."""
    return UserVocabulary(np.zeros(1, np.int64), np.zeros(1, np.int32), 1)


def read_vocabulary(users: Path, attributes: Sequence[str]) -> UserVocabulary:
    """The vocabulary of a prepared users.parquet; `no_attributes()` without attributes."""
    if not attributes:
        return no_attributes()
    columns = pq.read_table(users, columns=list(attributes))
    return vocabulary({name: columns[name].to_pylist() for name in attributes})


def vocabulary(values: Mapping[str, Iterable[str | None]]) -> UserVocabulary:
    """The vocabulary of attributes, given each user's value of every one, in the order of `values`."""
    row_of: dict[int, int] = {}
    next_row = 1
    for name, column in values.items():
        counts = Counter(value for value in column if value is not None)
        for group in _groups(counts):
            if sum(counts[value] for value in group) >= MIN_USERS:
                row_of |= dict.fromkeys((feature_key(name, value) for value in group), next_row)
                next_row += 1
    if not row_of:
        return UserVocabulary(np.zeros(1, np.int64), np.zeros(1, np.int32), max(1, len(values)))
    keys = np.array(sorted(row_of), np.int64)
    rows = np.array([row_of[int(key)] for key in keys], np.int32)
    return UserVocabulary(keys, rows, len(values))


def _groups(counts: Counter[str]) -> list[list[str]]:
    """The values that count as one each: single ones, or the neighbours in a bin if all are numbers."""
    try:
        numbers = {value: float(value) for value in counts}
    except ValueError:
        return [[value] for value in sorted(counts)]
    if len(counts) <= _FEW_VALUES or not np.isfinite(list(numbers.values())).all():
        return [[value] for value in sorted(counts)]
    ordered = sorted(counts, key=lambda value: (numbers[value], value))
    before = np.cumsum([0] + [counts[value] for value in ordered[:-1]])
    bins = before * _NUMBER_BINS // sum(counts.values())
    groups = [[v for v, b in zip(ordered, bins, strict=True) if b == each] for each in np.unique(bins)]
    return [[*group, *_between(group, numbers, counts)] for group in groups]


def _between(group: Sequence[str], numbers: dict[str, float], counts: Counter[str]) -> list[str]:
    """The whole numbers that nobody has, between the least and the greatest of a bin of whole numbers: who
    has one of them tomorrow is of this bin."""
    least, greatest = numbers[group[0]], numbers[group[-1]]
    if not all(value.isdecimal() for value in group) or greatest - least > _FILLED:
        return []
    return [str(n) for n in range(int(least), int(greatest) + 1) if str(n) not in counts]
