"""The graph that is served: a trained encoder, the catalogue, retrieval and its filters, in terms of item
keys.

Two signatures over one set of weights: `recommend` and `encode`. Work that a request does not need is not
done: rows with a fresh vector are not encoded, filters cost nothing where none is set, and an output that
nobody asked for is pruned away by whoever runs the graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from features.schema import PADDING_KEY, item_keys
from training.model import HistoryEncoder

_LARGEST_COMPONENT = 1e6
"""A cached user vector with a larger (or a not finite) component is not believed, and the row is encoded."""


class Served(tf.Module):
    """What `tf.saved_model.save` gets."""

    def __init__(
        self,
        encoder: HistoryEncoder,
        items: Sequence[CatalogItem],
        categories: Sequence[str],
        *,
        page_size: int,
    ) -> None:
        """`items[i]` has index i + 1 in the encoder; the `allowed_categories` axis is `categories`, and after
        them one slot for the items that have none."""
        super().__init__()
        # Only the weights are part of the artefact: a tracked Keras model would be saved with signatures of
        # its own.
        self._encoder = lambda: encoder
        self._weights = [weight.value for weight in encoder.weights]
        self.history, self.width = encoder.config.history, encoder.config.width
        self.page_size = min(page_size, len(items))
        keys = item_keys(item.item_id for item in items)
        order = np.argsort(keys)
        self._keys = tf.Variable(np.concatenate([[PADDING_KEY], keys]), trainable=False)  # (N + 1,)
        self._sorted_keys = tf.Variable(keys[order], trainable=False)
        self._sorted_index = tf.Variable(order.astype(np.int32) + 1, trainable=False)
        self._item_categories = tf.Variable(
            _category_matrix(items, categories), trainable=False
        )  # (C, N + 1)
        batch = {
            "history_keys": tf.TensorSpec((None, self.history), tf.int64, "history_keys"),
            "history_times": tf.TensorSpec((None, self.history), tf.int64, "history_times"),
            "request_time": tf.TensorSpec((None, 1), tf.int64, "request_time"),
        }
        more = {
            "user_vector": tf.TensorSpec((None, self.width), tf.float32, "user_vector"),
            "user_vector_fresh": tf.TensorSpec((None, 1), tf.int32, "user_vector_fresh"),
            "exclude_keys": tf.TensorSpec((None, None), tf.int64, "exclude_keys"),
            "allowed_categories": tf.TensorSpec(
                (None, self._item_categories.shape[0]), tf.bool, "allowed_categories"
            ),
        }
        self.encode = tf.function(self._encode, input_signature=list(batch.values()))
        self.recommend = tf.function(self._recommend, input_signature=[*batch.values(), *more.values()])

    def _encode(
        self, history_keys: tf.Tensor, history_times: tf.Tensor, request_time: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Histories to user vectors, float32 `[B, D]`. This model does not look at the times."""
        return {"user_vector": self._encoded(history_keys)}

    def _recommend(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        request_time: tf.Tensor,
        user_vector: tf.Tensor,
        user_vector_fresh: tf.Tensor,
        exclude_keys: tf.Tensor,
        allowed_categories: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """The best `page_size` items that pass the filters; shapes and meaning as in DESIGN §3.2."""
        vector = self._current(history_keys, user_vector, user_vector_fresh)  # (B, D)
        # Over the padding row, too: to leave it out here would copy the whole matrix on every call.
        scores = tf.matmul(vector, self._encoder().items, transpose_b=True)  # (B, N + 1)
        scores = self._without_excluded(scores, exclude_keys)
        scores = self._within_categories(scores, allowed_categories)
        top, index = tf.math.top_k(scores, self.page_size)  # of equal scores the lower index comes first
        allowed = top > -np.inf
        return {
            "item_keys": tf.where(allowed, tf.gather(self._keys, index), np.int64(PADDING_KEY)),
            "scores": tf.where(allowed, top, 0.0),
            "reason_keys": tf.where(allowed, self._reasons(history_keys, index), np.int64(PADDING_KEY)),
            "user_vector": vector,
        }

    def _current(self, history_keys: tf.Tensor, vector: tf.Tensor, fresh: tf.Tensor) -> tf.Tensor:
        """Each row's vector: the given one where it is fresh, else a new one; float32 `[B, D]`."""
        # Not "any component too large": a NaN compares false either way, and must not pass.
        usable = (fresh[:, 0] != 0) & tf.reduce_all(tf.abs(vector) < _LARGEST_COMPONENT, axis=1)

        def encode_the_rest() -> tf.Tensor:
            rows = tf.where(~usable)
            return tf.tensor_scatter_nd_update(
                vector, rows, self._encoded(tf.gather(history_keys, rows[:, 0]))
            )

        return tf.cond(tf.reduce_all(usable), lambda: tf.identity(vector), encode_the_rest)

    def _encoded(self, keys: tf.Tensor) -> tf.Tensor:
        """int64 `[B, T]` to float32 `[B, D]`."""
        index = self._index(keys)
        known = index > 0
        # Right-aligned without gaps, in the same order: what the history is without its unknown items.
        place = tf.range(self.history) + tf.where(known, self.history, 0)
        index = tf.gather(index, tf.argsort(place, axis=1), batch_dims=1)
        return self._encoder()(index, newest_only=True)

    def _index(self, keys: tf.Tensor) -> tf.Tensor:
        """Keys to catalogue indices, int32 of the same shape; 0 for padding and unknown keys."""
        flat = tf.reshape(keys, [-1])
        # A key above all others would be looked up behind the end; the last key is not equal to it either.
        at = tf.minimum(tf.searchsorted(self._sorted_keys, flat), self._sorted_keys.shape[0] - 1)
        found = tf.equal(tf.gather(self._sorted_keys, at), flat)
        return tf.reshape(tf.where(found, tf.gather(self._sorted_index, at), 0), tf.shape(keys))

    def _without_excluded(self, scores: tf.Tensor, exclude_keys: tf.Tensor) -> tf.Tensor:
        """Scores `[B, N + 1]` with −inf for what is excluded, and for padding in every row."""
        slots = tf.where(tf.not_equal(exclude_keys, PADDING_KEY))  # mostly few: only these are looked up
        index = self._index(tf.gather_nd(exclude_keys, slots))
        # A key that this version does not know has index 0, and padding is excluded anyway.
        excluded = tf.stack([slots[:, 0], tf.cast(index, tf.int64)], axis=1)
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

    def _reasons(self, history_keys: tf.Tensor, recommended: tf.Tensor) -> tf.Tensor:
        """For each recommended item the item of the history whose vector has the highest cosine with it.

        int64 `[B, T]` keys and int32 `[B, K]` indices to int64 `[B, K]` keys; 0 where the history holds no
        known item. Of equals, the oldest.
        """
        index, items = self._index(history_keys), self._encoder().items
        history = tf.math.l2_normalize(tf.gather(items, index), axis=-1)  # (B, T, D)
        # The length of the recommended item's own vector does not change which of the cosines is the highest.
        cosines = tf.matmul(tf.gather(items, recommended), history, transpose_b=True)  # (B, K, T)
        unknown = tf.where(index > 0, 0.0, -np.inf)
        best = tf.argmax(cosines + unknown[:, None, :], axis=-1, output_type=tf.int32)  # (B, K)
        return tf.gather(self._keys, tf.gather(index, best, batch_dims=1))


def _category_matrix(items: Sequence[CatalogItem], categories: Sequence[str]) -> NDArray[np.float32]:
    """float32 `[C, N + 1]`: 1 where the item has the category, in the last row where it has none.

    Padding, column 0, is in no row.
    """
    row_of = {category: row for row, category in enumerate(categories)}
    matrix = np.zeros((len(categories) + 1, len(items) + 1), np.float32)
    for column, item in enumerate(items, start=1):
        matrix[[row_of[category] for category in item.categories] or -1, column] = 1.0
    return matrix
