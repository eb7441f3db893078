"""The training loss: softmax over the catalogue, whole if it is small, sampled if it is large."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.config import Config
from training.model import Histories, HistoryEncoder

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


def draw_items(
    targets: tf.Tensor, had: tf.Tensor, shares: tf.Tensor, negatives: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A sample of the catalogue for `sampled_softmax`, and how often each draw is expected in it.

    `negatives` items are targets of other positions in the batch, so drawn in proportion to popularity, and
    as many are drawn uniformly, to reach the tail (Yang et al., "Mixed Negative Sampling for Learning
    Two-tower Neural Networks in Recommendations", WWW 2020).

    Args:
        targets: int32 `[P]`, catalogue indices from 1.
        had: int32 `[n]`, the items that somebody took: the others are no negatives, as nobody was asked.
        shares: float32 `[N + 1]`, the share of each item among all targets of the training data.
        negatives: draws of each of the two kinds, with replacement.
        seed: int32 `[2]`, decides the draws.

    Returns:
        int32 and float32 `[2 * negatives]`.
    """
    count = tf.shape(had)[0]
    picks = tf.random.stateless_uniform((negatives,), seed, 0, tf.shape(targets)[0], tf.int32)
    uniform = tf.gather(had, tf.random.stateless_uniform((negatives,), seed + 1, 0, count, tf.int32))
    drawn = tf.concat([tf.gather(targets, picks), uniform], axis=0)
    return drawn, negatives * (tf.gather(shares, drawn) + 1.0 / tf.cast(count, tf.float32))


def sampled_softmax(
    vectors: tf.Tensor, targets: tf.Tensor, items: tf.Tensor, drawn: tf.Tensor, expected: tf.Tensor
) -> tf.Tensor:
    """Cross-entropy against a sample of the catalogue that all positions share, float32 `[P]`.

    The logit of each draw is lowered by the logarithm of how often its item is expected among all draws; then
    the sum of exponentials is an unbiased estimate of that over the catalogue (the log-Q correction: Bengio &
    Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model",
    IEEE TNN 2008). A position's own target is scored exactly, and is taken out of its sample.

    Args:
        vectors: float32 `[P, W]`.
        targets: int32 `[P]`, rows of `items`.
        items: float32 `[n, W]`, at least the rows that are named here.
        drawn: int32 `[S]`, rows of `items`.
        expected: float32 `[S]`, as from `draw_items`.
    """
    logits = tf.matmul(vectors, tf.gather(items, drawn), transpose_b=True) - tf.math.log(expected)  # (P, S)
    logits = tf.where(drawn == targets[:, None], -1e9, logits)
    own = tf.reduce_sum(vectors * tf.gather(items, targets), axis=-1)  # (P,)
    return tf.reduce_logsumexp(tf.concat([own[:, None], logits], axis=-1), axis=-1) - own


class WindowLoss:
    """The loss of a batch of training windows."""

    def __init__(
        self, config: Config, model: HistoryEncoder, had: NDArray[np.bool_], item_users: NDArray[np.int64]
    ) -> None:
        """`had` and `item_users` are those of `ItemInputs` and `Counts`."""
        self._model = model
        self._negatives = config.training.sampled_negatives
        self._sampled = model.item_count > config.training.sampled_softmax_threshold
        self._type_weights = tf.constant(config.behaviour.type_weights(), tf.float32)
        shares = np.concatenate([[0], item_users / max(1, item_users.sum())])
        self._shares = tf.constant(shares, tf.float32)
        # Items that nobody took are no negatives: to learn that they are never next would be to learn nothing
        # but that nobody was asked, and it would keep a new item from ever being recommended.
        self._had = tf.constant(np.flatnonzero(had), tf.int32)  # (n,)
        self._rows = tf.concat([[0], self._had], axis=0)  # (n + 1,)
        self._row_of = tf.constant(np.where(had, np.cumsum(had), 0), tf.int32)  # (N + 1,)

    def __call__(self, windows: dict[str, tf.Tensor], seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The sum of the losses of all positions, each times the weight of its target's type, and the sum of
        these weights."""
        losses, weights, real = self.of_positions(windows, seed)
        del real
        return tf.reduce_sum(losses * weights), tf.reduce_sum(weights)

    def of_positions(
        self, windows: dict[str, tf.Tensor], seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Losses and weights float32 `[P]` of the P positions that have a target, and which they are: bool
        `[b, T]`.

        Args:
            windows: a batch of `training_windows`.
            seed: int32 `[2]`, decides what is drawn.
        """
        items, times, types = windows["items"], windows["times"], windows["types"]
        real = tf.not_equal(items[:, :-1], 0)
        if self._model.has_attributes:
            # Who tells something of themselves is asked for their first event, too: from no history.
            real |= (items[:, :-1] == 0) & (items[:, 1:] != 0)
        targets = tf.boolean_mask(items[:, 1:], real)  # (P,)
        weights = tf.gather(self._type_weights, tf.boolean_mask(types[:, 1:], real))  # (P,)
        if self._sampled:
            drawn, expected = draw_items(targets, self._had, self._shares, self._negatives, seed)
            # Vectors are made of those items only that this batch has to do with.
            every = tf.concat([[0], tf.reshape(items, [-1]), targets, drawn], axis=0)
            rows, place = tf.unique(every)
            table = self._model.table(rows, training=True)
            _, read, targets, drawn = tf.split(
                place, [1, tf.size(items), tf.size(targets), tf.size(drawn)], num=4
            )
            read = tf.reshape(read, tf.shape(items))
        else:
            table, read = self._model.table(training=True), items
        histories = Histories(
            items=read[:, :-1],
            times=times[:, :-1],
            types=types[:, :-1],
            asked=times[:, 1:],
            features=windows["features"],
        )
        vectors = tf.boolean_mask(self._model(histories, table, training=True), real)  # (P, W)
        if self._sampled:
            losses = sampled_softmax(vectors, targets, table, drawn, expected)
        else:
            losses = full_softmax(vectors, tf.gather(self._row_of, targets), tf.gather(table, self._rows))
        return losses, weights, real
