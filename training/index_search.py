"""Candidates from an inverted file, inside a graph.

A request looks through the lists that promise most. Within them nothing is approximate: filter, exclusion,
publication and lift act on every item. It goes on to the next lists until it has seen enough items that it
allows, and in any case while it has fewer than it wants; lists that hold nothing of the filter's categories
are passed over. A filter that few items pass is answered from all of these instead. So a filtered page is
never short while matching items exist.

Requests of a batch are answered one after the other: the lists of one fit into a core's cache, those of all
do not, and one with a wide search holds no memory for the others. A request that needs more lists takes them
in few and larger steps: a step costs some operations, whatever it looks at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from features.catalog import CatalogItem
from training.gathering import gather
from training.index import Index
from training.index_kinds import Kinds
from training.model_config import Freshness
from training.search import Found, Query, Tables, lift_of

_BEST_OF_A_LIST = 2.0
"""The best item of a list of some hundred stands about so many standard deviations above its mean."""
_SPARE = 0.25
"""Of the pool: so many more are taken where scores are approximate, before they are made exact."""
_EACH_EXCLUDED = 10
"""Items to see for each excluded one: who has had the best hundred wants the second best."""
_MOST_AT_ONCE = 2**14
"""Items of one step: it gathers their vectors, 4 MiB of 64 numbers each."""
_DAY_S = 86_400.0


class InvertedSearch(tf.Module):
    """Looks through the lists of an `Index`. Rows are its places: list · P + place."""

    probes: int
    """Lists looked through at once. Read when a graph is made of this, not when it runs."""

    def __init__(
        self,
        tables: Tables,
        index: Index,
        items: Sequence[CatalogItem],
        categories: Sequence[str],
        *,
        freshness: Freshness | None,
        pool: int,
    ) -> None:
        """
        Args:
            tables: by place; the level of an empty place is -inf.
            categories: the axis of `Query.allowed`, with a slot for none behind it.
        """
        super().__init__()
        self.probes, self._pool = index.probes, pool
        self._lists, self._capacity, self._narrow = index.lists, index.capacity, index.narrow
        self._per_list = len(items) / index.lists
        self._most = math.ceil(_MOST_AT_ONCE / self._per_list)
        self._vectors, self._levels, self._item_times, self._published = tables
        self._freshness, self._time = freshness, index.time
        self._kinds = Kinds(items, categories, index.items)
        self._means = tf.Variable(index.means, trainable=False)
        empty = ~index.items.any(axis=1)
        levels = np.where(empty, -np.inf, index.levels[:, 0])
        self._list_levels = tf.Variable(levels, False, dtype=tf.float32)
        self._level_spreads = tf.Variable(index.levels[:, 1], trainable=False)
        self._spreads = tf.Variable(index.spreads, trainable=False)
        self._lifts = tf.Variable(index.lifts, trainable=False)
        self._copy, self._scale = self._stored(index)
        self._kept = pool if self._copy is None else round(pool * (1 + _SPARE))

    def __call__(self, query: Query) -> Found:
        """The best `pool` items of each request among those that were looked at."""
        promise = self._promise(query)  # (B, L)
        batch = tf.shape(query.vectors, tf.int64)[0]
        starts = tf.searchsorted(query.excluded[:, 0], tf.range(batch + 1))  # (B + 1,)
        excluded = tf.cast(query.excluded[:, 1], tf.int32)

        def row(of: tuple[tf.Tensor, ...]) -> tf.Tensor:
            vector, promise, time, start, end, allowed = of
            return self._row(vector[None], promise, time, _unwanted(excluded[start:end]), allowed)

        rows = tf.map_fn(
            row,
            (query.vectors, promise, query.request_time, starts[:-1], starts[1:], query.allowed),
            fn_output_signature=tf.TensorSpec((self._kept,), tf.int32),
            parallel_iterations=1,
        )  # (B, kept)
        found = gather(self._vectors, rows)  # (B, kept, W)
        own = tf.matmul(found, query.vectors[..., None])[..., 0] + gather(self._levels, rows)
        lifted = own
        if self._freshness is not None:
            times = gather(self._item_times, rows)
            lifted += lift_of(self._freshness, query.request_time, times)
        top, order = tf.math.top_k(lifted, self._pool)
        return Found(top, *(tf.gather(values, order, batch_dims=1) for values in (rows, own)))

    def _promise(self, query: Query) -> tf.Tensor:
        """What score the best item of each list may have, float32 `[B, L]`."""
        promise = tf.matmul(query.vectors, self._means, transpose_b=True) + self._list_levels
        squares = tf.reduce_sum(query.vectors**2, axis=1, keepdims=True)  # (B, 1)
        variance = squares * self._spreads**2 + self._level_spreads**2
        if self._freshness is not None:
            # All lifts fall alike, so their mean does; but for items that come after the index was made.
            days = tf.cast(tf.maximum(query.request_time - self._time, 0), tf.float32) / _DAY_S
            left = tf.pow(0.5, days / self._freshness.half_life_days)  # (B, 1)
            promise += left * self._lifts[:, 0]
            variance += (left * self._lifts[:, 1]) ** 2
        promise += _BEST_OF_A_LIST * tf.sqrt(variance)
        return promise

    def _row(
        self, vector: tf.Tensor, promise: tf.Tensor, time: tf.Tensor, unwanted: tf.Tensor, allowed: tf.Tensor
    ) -> tf.Tensor:
        """The candidates of one request, int32 `[kept]`, best first, 0 for none.

        Args:
            vector: float32 `[1, W]`.
            promise: float32 `[L]`.
            time: int64 `[1]`.
            unwanted: int32 `[e + 1]`, ascending; the last one is a bound.
            allowed: bool `[C]`.
        """

        def unfiltered() -> tf.Tensor:
            return self._in_lists(vector, promise, time, unwanted, None)

        def filtered() -> tf.Tensor:
            kinds = self._kinds.allowed(allowed)
            promising = tf.where(self._kinds.lists(allowed), promise, -np.inf)
            return tf.cond(
                self._kinds.count(kinds) <= self._narrow,
                lambda: self._among(vector, self._kinds.members(kinds), time, unwanted),
                lambda: self._in_lists(vector, promising, time, unwanted, kinds),
            )

        return tf.cond(tf.reduce_all(allowed), unfiltered, filtered)

    def _in_lists(
        self,
        vector: tf.Tensor,
        promise: tf.Tensor,
        time: tf.Tensor,
        unwanted: tf.Tensor,
        kinds: tf.Tensor | None,
    ) -> tf.Tensor:
        """From the most promising lists; -inf for a list that is not looked at. `kinds`: bool `[S]`."""
        enough = int(self.probes * self._per_list / 2) + _EACH_EXCLUDED * (tf.size(unwanted) - 1)
        most = min(max(self.probes, self._most), self._lists)

        def wanting(
            promise: tf.Tensor, width: tf.Tensor, seen: tf.Tensor, scores: tf.Tensor, rows: tf.Tensor
        ) -> tf.Tensor:
            more = (seen < enough) | (scores[-1] == -np.inf)
            return more & (tf.reduce_max(promise) > -np.inf)

        def step(
            promise: tf.Tensor, width: tf.Tensor, seen: tf.Tensor, scores: tf.Tensor, rows: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            # What is missing, if every item were allowed. With a filter more lists may be needed: doubled.
            missing = tf.cast(tf.math.ceil(tf.cast(enough - seen, tf.float32) / self._per_list), tf.int32)
            best, lists = tf.math.top_k(promise, tf.minimum(tf.maximum(width, missing), most), sorted=False)
            lists = tf.boolean_mask(lists, best > -np.inf)
            promise = tf.tensor_scatter_nd_update(promise, lists[:, None], tf.fill(tf.shape(lists), -np.inf))
            places = tf.reshape(lists[:, None] * self._capacity + tf.range(self._capacity), [-1])
            new = self._masked(self._approximate(vector, places), time, places, kinds)
            seen += tf.math.count_nonzero(new > -np.inf, dtype=tf.int32)
            width = tf.minimum(2 * width, most)
            return promise, width, seen, *self._best(new, places, unwanted, scores, rows)

        nothing = tf.fill((self._kept,), -np.inf), tf.zeros((self._kept,), tf.int32)
        first = promise, tf.constant(self.probes), tf.constant(0), *nothing
        *_, scores, rows = tf.while_loop(wanting, step, first)
        return tf.where(scores > -np.inf, rows, 0)

    def _among(self, vector: tf.Tensor, rows: tf.Tensor, time: tf.Tensor, unwanted: tf.Tensor) -> tf.Tensor:
        """From all of these rows."""
        scores = tf.matmul(vector, gather(self._vectors, rows), transpose_b=True)[0]
        scores = self._masked(scores, time, rows, None)
        nothing = tf.fill((self._kept,), -np.inf), tf.zeros((self._kept,), tf.int32)
        scores, rows = self._best(scores, rows, unwanted, *nothing)
        return tf.where(scores > -np.inf, rows, 0)

    def _approximate(self, vector: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """Inner products with what is held of these places, float32 `[n]`."""
        held = gather(self._vectors if self._copy is None else self._copy, places)
        scores = tf.matmul(vector, tf.cast(held, tf.float32), transpose_b=True)[0]
        return scores if self._scale is None else scores * gather(self._scale, places)

    def _masked(
        self,
        scores: tf.Tensor,
        time: tf.Tensor,
        rows: tf.Tensor,
        kinds: tf.Tensor | None,
    ) -> tf.Tensor:
        """Scores of n rows with level and lift, float32 `[n]`; -inf where nothing is that may be returned.

        Args:
            kinds: bool `[S]`; None: all are allowed.
        """
        scores += gather(self._levels, rows)
        if self._freshness is not None:
            scores += lift_of(self._freshness, time, gather(self._item_times, rows))
        if self._published is not None:
            scores = tf.where(gather(self._published, rows) <= time, scores, -np.inf)
        if kinds is not None:
            scores = tf.where(tf.gather(kinds, gather(self._kinds.of_rows, rows)), scores, -np.inf)
        return scores

    def _best(
        self,
        new: tf.Tensor,
        new_rows: tf.Tensor,
        unwanted: tf.Tensor,
        scores: tf.Tensor,
        rows: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The best of `[kept]` and `[n]` new ones, without what is unwanted; `[kept]`, best first."""
        # With as many more as are unwanted: so many may be among the best.
        count = tf.minimum(self._kept + tf.size(unwanted) - 1, tf.size(new))
        new, at = tf.math.top_k(new, count)
        new_rows = tf.gather(new_rows, at)
        nearest = tf.gather(unwanted, tf.searchsorted(unwanted, new_rows))
        new = tf.where(nearest == new_rows, -np.inf, new)
        top, order = tf.math.top_k(tf.concat([scores, new], axis=0), self._kept)
        return top, tf.gather(tf.concat([rows, new_rows], axis=0), order)

    def _stored(self, index: Index) -> tuple[tf.Variable | None, tf.Variable | None]:
        """A smaller copy of the vectors, and what its numbers are to be multiplied with `[L · P]`."""
        if index.storage == "float32":
            return None, None
        if index.storage == "bfloat16":
            return tf.Variable(tf.cast(self._vectors, tf.bfloat16), trainable=False), None
        vectors = self._vectors.numpy()
        scale = np.maximum(np.abs(vectors).max(axis=1), 1e-30) / 127.0
        copy = np.rint(vectors / scale[:, None]).astype(np.int8)
        return tf.Variable(copy, trainable=False), tf.Variable(scale, False, dtype=tf.float32)


def _unwanted(excluded: tf.Tensor) -> tf.Tensor:
    """The distinct rows of items among int32 `[e]`, ascending: many a key is unknown, row 0, or comes twice.
    Behind them a bound, so that a look-up always finds a place."""
    ascending = tf.concat([[0], tf.sort(excluded)], axis=0)
    known = tf.boolean_mask(ascending[1:], ascending[1:] != ascending[:-1])
    return tf.concat([known, [tf.int32.max]], axis=0)
