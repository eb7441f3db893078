"""The graph that is served: a trained model, the catalogue, retrieval and its filters, ranking, diversity, in
terms of item keys.

Two signatures over one set of weights: `recommend` and `encode`. Work that a request does not need is not
done: rows with a fresh vector are not encoded, filters and diversity cost nothing where nobody asks for them,
and an output that nobody asked for is pruned away by whoever runs the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from features.schema import PADDING_KEY, item_keys
from training.diversity import diversified
from training.gathering import gather
from training.index import Index
from training.index_search import InvertedSearch
from training.lookup import Lookup
from training.model import Histories, HistoryEncoder, asked_at
from training.ranker import NO_CANDIDATE, Candidates, Ranker, log_shares, sampling_shift
from training.reasons import reasons
from training.search import ExactSearch, Found, Query, Search, Tables
from training.trained import Trained

_LARGEST_COMPONENT = 1e6
"""A cached user vector with a larger (or a not finite) component is not believed, and the row is encoded."""


class Served(tf.Module):
    """What `tf.saved_model.save` gets."""

    search: Search
    """Finds the candidates."""
    items: NDArray[np.int32]
    """`[R]`: the catalogue index, from 1, of each row of the graph's tables; 0 for a row of nothing."""
    pool: int
    """Candidates that are re-scored or re-ordered: more than a page only if the ranking network was trained
    so."""

    def __init__(
        self,
        trained: Trained,
        items: Sequence[CatalogItem],
        categories: Sequence[str],
        *,
        page_size: int,
        index: Index | None = None,
    ) -> None:
        """`items[i]` has index i + 1 in the model; the `allowed_categories` axis is `categories`, and after
        them one slot for the items that have none. Without an index all items are scored."""
        super().__init__()
        facts, model, ranker = trained.facts, trained.model, trained.ranker
        config = facts.config
        # Only the weights are part of the artefact: a tracked Keras model would be saved with signatures of
        # its own. The table that item vectors were trained in is not: they are saved as they came out.
        self._untracked = _Untracked(model, ranker)
        of_table = {id(weight) for weight in model.table.weights}
        self._weights = [weight.value for weight in model.weights if id(weight) not in of_table]
        self._ranker_weights = [weight.value for weight in ranker.weights] if ranker else []
        self.history, self.width = config.model.history, config.model.width
        self.page_size, self.categories = min(page_size, len(items)), len(categories) + 1
        self.pool = min(config.ranker.candidates if ranker else page_size, len(items))
        self._recent = min(config.ranker.recent, self.history)
        self._shift = sampling_shift(min(config.ranker.candidates, len(items)), config.ranker.negatives)
        self._freshness = config.behaviour.freshness
        # With an index the tables stand in the order of its lists: a list is a block of them, not a copy.
        self.items = np.arange(len(items) + 1, dtype=np.int32) if index is None else index.items.ravel()
        keys = item_keys(item.item_id for item in items)
        self._keys = self._table(np.concatenate([[PADDING_KEY], keys]))  # (R,)
        rows = np.flatnonzero(self.items).astype(np.int32)
        self._index = Lookup(keys[self.items[rows] - 1], rows)
        self._vectors = self._table(trained.items.vectors)  # (R, D)
        self._item_times = self._table(facts.item_times)  # (R,)
        self._popularity = self._table(facts.popularity)  # (R,)
        levels = trained.items.levels[self.items]
        if index is not None:
            levels[self.items == 0] = -np.inf
        self._levels = tf.Variable(levels, trainable=False)  # (R,)
        tables = Tables(
            vectors=self._vectors,
            levels=self._levels,
            item_times=self._item_times,
            published=self._table(facts.published) if facts.published.any() else None,
        )
        self.search = (
            ExactSearch(
                tables,
                items,
                categories,
                freshness=self._freshness,
                has_levels=bool(levels.any()),
                pool=self.pool,
            )
            if index is None
            else InvertedSearch(tables, index, items, categories, freshness=self._freshness, pool=self.pool)
        )
        self._attributes = Lookup(facts.vocabulary.keys, facts.vocabulary.rows)
        surfaces = facts.surfaces if len(facts.surfaces) else np.zeros(1, np.int64)
        surface_rows = np.arange(1, len(surfaces) + 1) if len(facts.surfaces) else np.zeros(1)
        self._surfaces = Lookup(surfaces, surface_rows.astype(np.int32))
        self._kept_types = tf.Variable(facts.kept_types, trainable=False)
        batch = {
            "history_keys": tf.TensorSpec((None, self.history), tf.int64, "history_keys"),
            "history_times": tf.TensorSpec((None, self.history), tf.int64, "history_times"),
            "history_types": tf.TensorSpec((None, self.history), tf.int32, "history_types"),
            "request_time": tf.TensorSpec((None, 1), tf.int64, "request_time"),
            "user_features": tf.TensorSpec((None, facts.vocabulary.attributes), tf.int64, "user_features"),
        }
        more = {
            "user_vector": tf.TensorSpec((None, self.width), tf.float32, "user_vector"),
            "user_vector_fresh": tf.TensorSpec((None, 1), tf.int32, "user_vector_fresh"),
            "exclude_keys": tf.TensorSpec((None, None), tf.int64, "exclude_keys"),
            "allowed_categories": tf.TensorSpec((None, self.categories), tf.bool, "allowed_categories"),
            "surface": tf.TensorSpec((None, 1), tf.int64, "surface"),
            "diversity": tf.TensorSpec((None, 1), tf.float32, "diversity"),
        }
        self.encode = tf.function(self._encode, input_signature=list(batch.values()), autograph=False)
        self.recommend = tf.function(
            self._recommend, input_signature=[*batch.values(), *more.values()], autograph=False
        )

    def _table(self, values: NDArray[Any]) -> tf.Variable:
        """What is known of the catalogue, `[N + 1, …]` with padding in row 0, by rows of the graph."""
        return tf.Variable(values[self.items], trainable=False)

    def _encode(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        history_types: tf.Tensor,
        request_time: tf.Tensor,
        user_features: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Histories to user vectors, float32 `[B, D]`."""
        histories = self._histories(history_keys, history_times, history_types, request_time, user_features)
        return {
            "user_vector": self._untracked.encoder(
                histories, tf.convert_to_tensor(self._vectors), newest_only=True
            )
        }

    def _recommend(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        history_types: tf.Tensor,
        request_time: tf.Tensor,
        user_features: tf.Tensor,
        user_vector: tf.Tensor,
        user_vector_fresh: tf.Tensor,
        exclude_keys: tf.Tensor,
        allowed_categories: tf.Tensor,
        surface: tf.Tensor,
        diversity: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """The best `page_size` items that pass the filters; shapes and meaning as in DESIGN §3.2."""
        histories = self._histories(history_keys, history_times, history_types, request_time, user_features)
        vector = self._current(histories, user_vector, user_vector_fresh)  # (B, D)
        found = self.candidates(vector, request_time, exclude_keys, allowed_categories)
        top, index = found.top, found.rows
        if self._untracked.ranker is not None:
            lifted = top - found.own if self._freshness is not None else 0.0
            own = tf.where(top > -np.inf, found.own, -np.inf)
            logits = self._ranked(histories, vector, index, own, surface)
            top, order = tf.math.top_k(tf.where(top > -np.inf, logits + lifted, -np.inf), self.pool)
            index = tf.gather(index, order, batch_dims=1)
        top, index = self._page(top, index, diversity)
        allowed = top > -np.inf
        shown = tf.sigmoid(top) if self._untracked.ranker is not None else top
        because = tf.gather(
            histories.items,
            reasons(tf.convert_to_tensor(self._vectors), histories.items, index),
            batch_dims=1,
        )  # (B, K)
        return {
            "item_keys": tf.where(allowed, gather(self._keys, index), np.int64(PADDING_KEY)),
            "scores": tf.where(allowed, shown, 0.0),
            "reason_keys": tf.where(allowed, gather(self._keys, because), np.int64(PADDING_KEY)),
            "user_vector": vector,
        }

    def candidates(
        self,
        user_vector: tf.Tensor,
        request_time: tf.Tensor,
        exclude_keys: tf.Tensor,
        allowed_categories: tf.Tensor,
    ) -> Found:
        """What a page is made of: the best items of the retrieval that pass the filters."""
        slots = tf.where(tf.not_equal(exclude_keys, PADDING_KEY))  # mostly few: only these are looked up
        rows = self._index(tf.gather_nd(exclude_keys, slots))
        # A key that this version does not know has row 0: padding, which is excluded anyway.
        excluded = tf.stack([slots[:, 0], tf.cast(rows, tf.int64)], axis=1)
        return self.search(Query(user_vector, request_time, excluded, allowed_categories))

    def _histories(
        self,
        keys: tf.Tensor,
        times: tf.Tensor,
        types: tf.Tensor,
        request_time: tf.Tensor,
        user_features: tf.Tensor,
    ) -> Histories:
        """What a history is without its unknown items and the events that do not count, right-aligned."""
        index = self._index(keys)
        kept = gather(self._kept_types, tf.where((types > 0) & (types < self._kept_types.shape[0]), types, 0))
        known = (index > 0) & kept
        # In the same order without gaps.
        place = tf.range(self.history) + tf.where(known, self.history, 0)
        order = tf.argsort(place, axis=1)
        index, times, types = (
            tf.gather(tf.where(known, values, tf.zeros_like(values)), order, batch_dims=1)
            for values in (index, times, types)
        )
        return Histories(index, times, types, asked_at(times, request_time), self._attributes(user_features))

    def _current(self, histories: Histories, vector: tf.Tensor, fresh: tf.Tensor) -> tf.Tensor:
        """Each row's vector: the given one where it is fresh, else a new one; float32 `[B, D]`."""
        # Not "any component too large": a NaN compares false either way, and must not pass.
        usable = (fresh[:, 0] != 0) & tf.reduce_all(tf.abs(vector) < _LARGEST_COMPONENT, axis=1)

        def encode_the_rest() -> tf.Tensor:
            rows = tf.where(~usable)
            rest = Histories(*(tf.gather(values, rows[:, 0]) for values in histories))
            encoded = self._untracked.encoder(rest, tf.convert_to_tensor(self._vectors), newest_only=True)
            return tf.tensor_scatter_nd_update(vector, rows, encoded)

        return tf.cond(tf.reduce_all(usable), lambda: tf.identity(vector), encode_the_rest)

    def _ranked(
        self, histories: Histories, vector: tf.Tensor, index: tf.Tensor, scores: tf.Tensor, surface: tf.Tensor
    ) -> tf.Tensor:
        """The ranking network's logits of candidates, float32 `[B, C]`; `scores`: -inf for none."""
        recent = histories.items[:, -self._recent :]
        real = tf.cast(recent > 0, tf.float32)[..., None]
        candidates = Candidates(
            user=vector,
            items=gather(self._vectors, index),
            scores=log_shares(tf.maximum(scores, NO_CANDIDATE)),
            popularity=gather(self._popularity, index),
            item_times=gather(self._item_times, index),
            recent=gather(self._vectors, recent) * real,
            recent_times=tf.where(recent > 0, histories.times[:, -self._recent :], 0),
            features=histories.features,
            surface=self._surfaces(surface)[:, 0],
            time=histories.asked[:, -1],
        )
        assert self._untracked.ranker is not None
        return self._untracked.ranker(candidates) - self._shift

    def _page(self, top: tf.Tensor, index: tf.Tensor, diversity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The slots of the page, scores and indices `[B, K]`, of candidates `[B, C]` in order of score."""

        plain = top[:, : self.page_size], index[:, : self.page_size]

        def diverse() -> tuple[tf.Tensor, tf.Tensor]:
            rows = tf.where(diversity[:, 0] > 0.0)
            some, found = (tf.gather(values, rows[:, 0]) for values in (top, index))
            wanted = tf.clip_by_value(tf.gather(diversity, rows[:, 0]), 0.0, 1.0)
            order = diversified(some, gather(self._vectors, found), wanted, self.page_size)
            scores, slots = (tf.gather(values, order, batch_dims=1) for values in (some, found))
            return (
                tf.tensor_scatter_nd_update(plain[0], rows, scores),
                tf.tensor_scatter_nd_update(plain[1], rows, slots),
            )

        page: tuple[tf.Tensor, tf.Tensor] = tf.cond(tf.reduce_any(diversity > 0.0), diverse, lambda: plain)
        return page


class _Untracked:
    """Models that `tf.saved_model` does not see."""

    def __init__(self, encoder: HistoryEncoder, ranker: Ranker | None) -> None:
        self.encoder, self.ranker = encoder, ranker
