"""What a request is answered from: the best items by the score of the retrieval, of those that it allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.model_config import Freshness

_DAY_S = 86_400.0
_BLOCK = 16
_BLOCKS_FROM = 50
"""Of more than so many times what is wanted, the best are looked for in the best blocks. For 100 of 10,000
that takes three quarters of the time of one step, of 100,000 two fifths, of 1,700 more than one step."""


class Query(NamedTuple):
    """B requests. A row is a place in the tables of the graph; row 0 is padding."""

    vectors: tf.Tensor
    """float32 `[B, D]`, user vectors."""
    request_time: tf.Tensor
    """int64 `[B, 1]`, Unix seconds."""
    excluded: tf.Tensor
    """int64 `[n, 2]`: request and row of an item that is not wanted there, in order of the requests. Row 0
    stands for an unknown item."""
    allowed: tf.Tensor
    """bool `[B, C]`: whether items of this category may be returned; all true: no filter."""


class Found(NamedTuple):
    """The candidates of B requests, best first."""

    top: tf.Tensor
    """float32 `[B, P]`: score and lift; -inf where nothing allowed is left."""
    rows: tf.Tensor
    """int32 `[B, P]`."""
    own: tf.Tensor
    """float32 `[B, P]`: the score without the lift of new items."""


class Search(Protocol):
    """Finds candidates inside a graph."""

    def __call__(self, query: Query) -> Found:
        """The best `pool` items of each request."""


class Tables(NamedTuple):
    """What is known of items, by row; variables of the graph that others read, too."""

    vectors: tf.Variable
    """float32 `[R, D]`."""
    levels: tf.Variable
    """float32 `[R]`, added to the scores."""
    item_times: tf.Variable
    """int64 `[R]`, Unix seconds since when an item is there, 0: not known."""
    published: tf.Variable | None
    """int64 `[R]`, Unix seconds before which an item is not returned; None: all of them always may be."""


class ExactSearch(tf.Module):
    """Scores every item for every request: right for catalogues of up to some hundred thousand."""

    def __init__(
        self,
        tables: Tables,
        items: Sequence[CatalogItem],
        categories: Sequence[str],
        *,
        freshness: Freshness | None,
        has_levels: bool,
        pool: int,
    ) -> None:
        """`items[i]` has row i + 1; the axis of `Query.allowed` is `categories`, and a slot for none."""
        super().__init__()
        vectors, self._levels, self._item_times, self._published = tables
        # A second time, as a product reads them: of rows it takes twice as long, as each call turns them.
        self._columns = tf.Variable(tf.transpose(vectors), trainable=False)  # (D, N + 1)
        self._freshness, self._has_levels, self._pool = freshness, has_levels, pool
        self._item_categories = tf.Variable(
            _category_matrix(items, categories), trainable=False
        )  # (C, N + 1)

    def __call__(self, query: Query) -> Found:
        """The best `pool` items of each request; of equal scores the lower row comes first."""
        # Over the padding row, too: to leave it out here would copy the whole matrix on every call.
        scores = tf.matmul(query.vectors, self._columns)  # (B, N + 1)
        if self._has_levels:
            scores += self._levels
        lift = 0.0
        if self._freshness is not None:
            lift = lift_of(self._freshness, query.request_time, self._item_times)  # (B, N + 1)
        allowed = self._without_excluded(scores + lift, query.excluded)
        allowed = self._within_categories(allowed, query.allowed)
        if self._published is not None:
            allowed = tf.where(self._published <= query.request_time, allowed, -np.inf)
        top, rows = best(allowed, self._pool)
        return Found(top, rows, tf.gather(scores, rows, batch_dims=1))

    def _without_excluded(self, scores: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
        """Scores `[B, N + 1]` with −inf for what is excluded, and for padding in every row."""
        rows = tf.range(tf.shape(scores, tf.int64)[0])
        padding = tf.stack([rows, tf.zeros_like(rows)], axis=1)
        at = tf.concat([padding, excluded], axis=0)
        return tf.tensor_scatter_nd_update(scores, at, tf.fill(tf.shape(at)[:1], -np.inf))

    def _within_categories(self, scores: tf.Tensor, allowed: tf.Tensor) -> tf.Tensor:
        """Scores `[B, N + 1]` with −inf for what no allowed category holds; all true means no filter."""

        def filtered() -> tf.Tensor:
            matches = tf.matmul(tf.cast(allowed, tf.float32), self._item_categories)  # (B, N + 1)
            return tf.where(matches > 0, scores, -np.inf)

        return tf.cond(tf.reduce_all(allowed), lambda: tf.identity(scores), filtered)


def best(scores: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The highest `count` of each row of float32 `[B, R]` and their places, as `tf.math.top_k` says them.

    Of many, they are looked for in the `count` blocks whose highest are highest: whatever is in none of these
    has `count` others above it, or before it where they are equal.
    """
    rows = scores.shape[1]
    if rows < _BLOCKS_FROM * count:
        top, at = tf.math.top_k(scores, count)
        return top, at
    missing = -rows % _BLOCK
    whole = tf.pad(scores, [[0, 0], [0, missing]], constant_values=-np.inf) if missing else scores
    blocks = tf.reshape(whole, [-1, (rows + missing) // _BLOCK, _BLOCK])
    _, of = tf.math.top_k(tf.reduce_max(blocks, axis=2), count, sorted=False)
    of = tf.sort(of, axis=1)  # (B, count): of equal scores the lower place stays the first
    top, at = tf.math.top_k(tf.reshape(tf.gather(blocks, of, batch_dims=1), [-1, count * _BLOCK]), count)
    return top, tf.gather(of, at // _BLOCK, batch_dims=1) * _BLOCK + at % _BLOCK


def lift_of(freshness: Freshness, request_time: tf.Tensor, item_times: tf.Tensor) -> tf.Tensor:
    """What the scores of items gain by being new, float32 of the shape that both have together; nothing where
    an item's time is not known."""
    age_s = tf.cast(tf.maximum(request_time - item_times, 0), tf.float32)
    gained = freshness.weight * tf.pow(0.5, age_s / (freshness.half_life_days * _DAY_S))
    return tf.where(item_times > 0, gained, 0.0)


def _category_matrix(items: Sequence[CatalogItem], categories: Sequence[str]) -> NDArray[np.float32]:
    """float32 `[C, N + 1]`: 1 where the item has the category, in the last row where it has none.

    Padding, column 0, is in no row.
    """
    row_of = {category: row for row, category in enumerate(categories)}
    matrix = np.zeros((len(categories) + 1, len(items) + 1), np.float32)
    for column, item in enumerate(items, start=1):
        matrix[[row_of[category] for category in item.categories] or -1, column] = 1.0
    return matrix
