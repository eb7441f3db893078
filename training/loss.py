"""The training loss: softmax over the catalogue, whole if it is small, sampled if it is large."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def full_softmax(vectors: tf.Tensor, targets: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of every position, float32 `[P]`, against the whole catalogue.

    The gradient is written out. It needs the exponentials only, and on a CPU, where the time goes into moving
    `[P, N]`, loss and gradient are a quarter cheaper so than with TensorFlow's own operation.

    Args:
        vectors: float32 `[P, W]`, the encoder's output at P positions.
        targets: int32 `[P]`, catalogue indices from 1.
        items: float32 `[N + 1, W]`, item embeddings with the padding row first.
    """
    index = targets - 1

    def loss(vectors: tf.Tensor, items: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
        logits = tf.matmul(vectors, items, transpose_b=True)  # (P, N)
        highest = tf.reduce_max(logits, axis=1, keepdims=True)
        exponentials = tf.exp(logits - highest)
        total = tf.reduce_sum(exponentials, axis=1, keepdims=True)
        own = tf.reduce_sum(vectors * tf.gather(items, index), axis=1)  # (P,)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # Of a logit: its softmax probability, less one for the target.
            upstream = upstream[:, None]
            share = upstream / total
            of_vectors = tf.matmul(exponentials, items) * share - tf.gather(items, index) * upstream
            of_targets = tf.math.unsorted_segment_sum(vectors * upstream, index, tf.shape(items)[0])
            return of_vectors, tf.matmul(exponentials, vectors * share, transpose_a=True) - of_targets

        return tf.math.log(total[:, 0]) + highest[:, 0] - own, gradient

    losses: tf.Tensor = tf.custom_gradient(loss)(vectors, items[1:])
    return losses


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
