"""Re-ordering a page so that its items differ: maximal marginal relevance.

Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998. Why this and not a determinantal point process: docs/decisions/0016.
"""

from __future__ import annotations

import tensorflow as tf

_NEVER = -1e9


def diversified(scores: tf.Tensor, vectors: tf.Tensor, diversity: tf.Tensor, count: int) -> tf.Tensor:
    """The order of a page, int32 `[B, count]`: positions of candidates, best first.

    Each slot takes the candidate with the highest `(1 - diversity) · relevance - diversity · similarity`.
    Relevance is the score between the lowest (0) and the highest (1) of the candidates, similarity the
    largest cosine with what was taken before, at least 0. With diversity 0 that is the order of the scores;
    of equals the one that stands first is taken.

    Args:
        scores: float32 `[B, C]`, descending; -inf where there is no candidate: these come last.
        vectors: float32 `[B, C, W]`.
        diversity: float32 `[B, 1]`, 0 to 1.
        count: slots, at most C.
    """
    real = scores > -float("inf")
    highest = tf.reduce_max(scores, axis=1, keepdims=True)
    lowest = tf.reduce_min(tf.where(real, scores, highest), axis=1, keepdims=True)
    relevance = tf.math.divide_no_nan(scores - lowest, highest - lowest)
    worth = tf.where(real, (1.0 - diversity) * relevance, _NEVER)  # (B, C)
    unit = tf.math.l2_normalize(vectors, axis=-1)
    alike = tf.maximum(tf.matmul(unit, unit, transpose_b=True), 0.0) * diversity[..., None]  # (B, C, C)

    def slot(
        at: tf.Tensor, worth: tf.Tensor, nearest: tf.Tensor, taken: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        best = tf.argmax(worth - nearest, axis=1, output_type=tf.int32)  # (B,)
        nearest = tf.maximum(nearest, tf.gather(alike, best, batch_dims=1))
        # Twice as far down as where there is no candidate: nothing is taken twice.
        worth = tf.where(tf.one_hot(best, tf.shape(worth)[1], True, False), 2 * _NEVER, worth)
        return at + 1, worth, nearest, taken.write(at, best)

    start = (tf.constant(0), worth, tf.zeros_like(worth), tf.TensorArray(tf.int32, size=count))
    *_, taken = tf.while_loop(lambda at, *_: at < count, slot, start)
    return tf.transpose(tf.ensure_shape(taken.stack(), (count, None)))
