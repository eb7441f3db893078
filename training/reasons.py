"""Which item of a history stands for why another was recommended: one that is like it, and recent.

A measured choice: removing it from the history has to lower the score of what was recommended. The highest
cosine alone names items of long ago that the encoder hardly attends to any more, the newest event alone has
often nothing to do with the item. How far this choice gets is in the report of every run.
"""

from __future__ import annotations

import tensorflow as tf

RECENCY = 0.02
"""What an event loses for each event after it, in units of the cosine. On the validation part of
MovieLens-100K anything from 0.01 to 0.03 is about as good (`training.reason_trial` measures it)."""
_LAST_RESORT = -1e6
"""Keeps an item that may return from being the reason for itself, unless there is no other."""


def reasons(
    vectors: tf.Tensor, history: tf.Tensor, recommended: tf.Tensor, recency: float = RECENCY
) -> tf.Tensor:
    """For each recommended item the position in the history of its reason, int32 `[B, K]`.

    The reason has the highest cosine with the recommended item, less `recency` for each later position. Of
    equals, the oldest. 0 where the history holds no item; that position is padding then.

    Args:
        vectors: float32 `[N + 1, W]`, row 0 is padding.
        history: int32 `[B, T]`, catalogue indices, oldest first, 0 where there is none.
        recommended: int32 `[B, K]`, catalogue indices.
        recency: 0: the cosine alone.
    """
    past, wanted = (
        tf.math.l2_normalize(tf.gather(vectors, items), axis=-1) for items in (history, recommended)
    )
    cosines = tf.matmul(wanted, past, transpose_b=True)  # (B, K, T)
    later = tf.range(history.shape[1] - 1, -1, -1, tf.float32)
    bias = tf.where(history > 0, -recency * later, -float("inf"))  # (B, T)
    itself = tf.where(history[:, None, :] == recommended[:, :, None], _LAST_RESORT, 0.0)  # (B, K, T)
    return tf.argmax(cosines + bias[:, None, :] + itself, axis=-1, output_type=tf.int32)
