"""From 64-bit keys to rows of a table, inside a graph."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.gathering import gather


class Lookup(tf.Module):
    """Keys to rows; 0, the row of nothing, for every key that it does not know."""

    def __init__(self, keys: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """`keys` int64 `[n]`, different from one another, and their `rows` int32 `[n]`, n ≥ 1."""
        super().__init__()
        order = np.argsort(keys)
        self._keys = tf.Variable(keys[order], trainable=False)
        self._rows = tf.Variable(rows[order].astype(np.int32), trainable=False)

    def __call__(self, keys: tf.Tensor) -> tf.Tensor:
        """int64 of any shape to int32 of the same."""
        flat = tf.reshape(keys, [-1])
        # A key above all others would be looked up behind the end; the last key is not equal to it either.
        at = tf.minimum(tf.searchsorted(self._keys, flat), self._keys.shape[0] - 1)
        found = tf.equal(gather(self._keys, at), flat)
        return tf.reshape(tf.where(found, gather(self._rows, at), 0), tf.shape(keys))
