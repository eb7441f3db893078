"""Items by the set of categories that they have: which a filter lets pass, how many, and where they stand.

Two items with the same categories are of one kind. Kinds part the catalogue, so the items that pass a filter
are counted without counting one twice, and no table has a cell for every category and item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.gathering import gather


class Kinds(tf.Module):
    """The kinds of items in the places of an index."""

    def __init__(
        self, items: Sequence[CatalogItem], categories: Sequence[str], places: NDArray[np.int32]
    ) -> None:
        """
        Args:
            items: the catalogue.
            categories: the axis of a filter, which has one more slot for items without a category.
            places: int32 `[L, P]`, catalogue index from 1 of the item in each place of each list, 0 for none.
        """
        super().__init__()
        number_of = {category: number for number, category in enumerate(categories)}
        kind_of: dict[tuple[int, ...], int] = {}
        own = np.zeros(len(items) + 1, np.int32)
        for index, item in enumerate(items, start=1):
            numbers = tuple(sorted(number_of[name] for name in item.categories)) or (len(categories),)
            own[index] = kind_of.setdefault(numbers, len(kind_of))
        flat = places.ravel()
        real = np.flatnonzero(flat)
        order = np.argsort(own[flat[real]], kind="stable")
        sizes = np.bincount(own[1:], minlength=len(kind_of))
        # A slot behind the last one, which no filter allows, fills up.
        names = np.full((len(kind_of), max(map(len, kind_of))), len(categories) + 1, np.int32)
        holds = np.zeros((len(categories) + 1, len(places)), np.bool_)
        lists = np.unique(own[flat[real]].astype(np.int64) * len(places) + real // places.shape[1])
        for numbers, kind in kind_of.items():
            names[kind, : len(numbers)] = numbers
        for column in names.T:
            named = column[lists // len(places)]
            some = named <= len(categories)
            holds[named[some], lists[some] % len(places)] = True
        self._names = tf.Variable(names, trainable=False)  # (S, most categories of an item)
        self._ends = tf.Variable(np.cumsum(sizes, dtype=np.int32), trainable=False)  # (S,)
        self._sizes = tf.Variable(sizes.astype(np.int32), trainable=False)  # (S,)
        self._members = tf.Variable(real[order].astype(np.int32), trainable=False)  # (N,), by kind
        self._holds = tf.Variable(holds, trainable=False)  # (C, L)
        self.of_rows = tf.Variable(own[flat], trainable=False)
        """int32 `[L · P]`: the kind of each place; any for an empty one."""

    def allowed(self, categories: tf.Tensor) -> tf.Tensor:
        """Which kinds have an allowed category: bool `[C]` to bool `[S]`."""
        return tf.reduce_any(tf.gather(tf.concat([categories, [False]], axis=0), self._names), axis=1)

    def count(self, kinds: tf.Tensor) -> tf.Tensor:
        """How many items are of these kinds: bool `[S]` to int32 `[]`."""
        return tf.reduce_sum(tf.where(kinds, self._sizes, 0))

    def members(self, kinds: tf.Tensor) -> tf.Tensor:
        """The rows of all items of these kinds: bool `[S]` to int32 `[n]`."""
        ends, sizes = tf.boolean_mask(self._ends, kinds), tf.boolean_mask(self._sizes, kinds)
        return gather(self._members, tf.ragged.range(ends - sizes, ends).flat_values)

    def lists(self, categories: tf.Tensor) -> tf.Tensor:
        """Which lists hold an item with an allowed category: bool `[C]` to bool `[L]`."""
        return tf.reduce_any(tf.boolean_mask(self._holds, categories), axis=0)
