"""The training loss: softmax over the catalogue, whole if it is small, sampled if it is large."""

from __future__ import annotations

import tensorflow as tf


def full_softmax(vectors: tf.Tensor, targets: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of every position, float32 `[P]`, against the whole catalogue.

    Args:
        vectors: float32 `[P, W]`, the encoder's output at P positions.
        targets: int32 `[P]`, catalogue indices from 1.
        items: float32 `[N + 1, W]`, item embeddings with the padding row first.
    """
    logits = tf.matmul(vectors, items[1:], transpose_b=True)  # (P, N)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(targets - 1, logits)


def sampled_softmax(
    vectors: tf.Tensor,
    targets: tf.Tensor,
    items: tf.Tensor,
    shares: tf.Tensor,
    negatives: int,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Cross-entropy against a sample of the catalogue that all positions share, float32 `[P]`.

    `negatives` candidates are targets of other positions in the batch, so drawn in proportion to popularity,
    and as many are drawn uniformly, to reach the tail (Yang et al., "Mixed Negative Sampling for Learning
    Two-tower Neural Networks in Recommendations", WWW 2020). The logit of each draw is lowered by the
    logarithm of how often its item is expected among all draws; then the sum of exponentials is an unbiased
    estimate of that over the catalogue (the log-Q correction: Bengio & Senécal, "Adaptive Importance Sampling
    to Accelerate Training of a Neural Probabilistic Language Model", IEEE TNN 2008). A position's own target
    is scored exactly, and is taken out of its sample.

    Args:
        vectors, targets, items: as for `full_softmax`.
        shares: float32 `[N + 1]`, the share of each item among all targets of the training data.
        negatives: draws of each of the two kinds, with replacement.
        seed: int32 `[2]`, decides the draws.
    """
    item_count = tf.shape(items)[0] - 1
    picks = tf.random.stateless_uniform((negatives,), seed, 0, tf.shape(targets)[0], tf.int32)
    uniform = tf.random.stateless_uniform((negatives,), seed + 1, 1, item_count + 1, tf.int32)
    drawn = tf.concat([tf.gather(targets, picks), uniform], axis=0)  # (S,)
    expected = negatives * (tf.gather(shares, drawn) + 1.0 / tf.cast(item_count, tf.float32))  # (S,)
    logits = tf.matmul(vectors, tf.gather(items, drawn), transpose_b=True) - tf.math.log(expected)  # (P, S)
    logits = tf.where(drawn == targets[:, None], -1e9, logits)
    own = tf.reduce_sum(vectors * tf.gather(items, targets), axis=-1)  # (P,)
    return tf.reduce_logsumexp(tf.concat([own[:, None], logits], axis=-1), axis=-1) - own
