"""The sequence model: a causal transformer that turns a history of items into a user vector.

SASRec (Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018) with pre-norm blocks (Xiong et
al., "On Layer Normalization in the Transformer Architecture", ICML 2020). The table of item vectors is tied:
it reads the history and scores the candidates, so the score of item i is `user_vector · item_vectors[i]`.

Attention knows time: to the logit of an event a learned number is added that depends on how long before the
request it was, one for each head and doubling of that time (relative bias: Shaw et al., NAACL 2018; over
times, for recommendation: Li et al., "Time Interval Aware Self-Attention", WSDM 2020, and Zhai et al.,
"Actions Speak Louder than Words", ICML 2024), and each event is told how much later what comes next was
asked for: moments, as on a page that is still open, or a month. An event's weight by its type, and its fading
by a set half-life, are factors of its attention, so their logarithms are added as well.

Inside a model an item is an index: 0 is padding, item `i` of the catalogue is `i + 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.item_features import ItemInputs, ItemTable
from training.model_config import BehaviourConfig, ModelConfig

BLOCKED = -1e9
"""Added to the attention logit of what must not be seen; finite, so a row that sees nothing stays finite."""
TIME_BUCKETS = 32
"""One for each doubling of seconds, up to 68 years."""


class Histories(NamedTuple):
    """What the encoder reads of B users; oldest event first, left-padded with 0."""

    items: tf.Tensor
    """int32 `[B, T]`, catalogue indices."""
    times: tf.Tensor
    """int64 `[B, T]`, Unix seconds."""
    types: tf.Tensor
    """int32 `[B, T]`, `features.schema.EventType`."""
    asked: tf.Tensor
    """int64 `[B, T]`, when each position is asked for what comes next (`asked_at`)."""
    features: tf.Tensor
    """int32 `[B, F]`, rows of the users' attributes, 0: unknown."""


class Block(keras.layers.Layer):
    """One pre-norm block: causal self-attention, then a feed-forward network, each with a residual."""

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        # Not cast by Keras, with mixed precision: `bias` holds what float16 cannot.
        super().__init__(autocast=False, **kwargs)
        self.heads = config.heads
        self.attention_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="attention_norm")
        self.query = keras.layers.Dense(config.width, name="query")
        self.key_value = keras.layers.Dense(2 * config.width, name="key_value")
        self.merge = keras.layers.Dense(config.width, name="merge")
        self.attention_dropout = keras.layers.Dropout(config.dropout, name="attention_dropout")
        self.feed_forward_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="feed_forward_norm")
        self.expand = keras.layers.Dense(config.width * config.feed_forward, activation="relu", name="expand")
        self.contract = keras.layers.Dense(config.width, name="contract")
        self.feed_forward_dropout = keras.layers.Dropout(config.dropout, name="feed_forward_dropout")
        self.times = config.times
        if config.times:
            self.time_bias = self.add_weight(
                name="time_bias", shape=(TIME_BUCKETS, config.heads), initializer="zeros"
            )

    def call(
        self,
        x: tf.Tensor,
        bias: tf.Tensor,
        ages: tf.Tensor,
        newest_only: bool = False,
        training: bool = False,
    ) -> tf.Tensor:
        """float32 `[B, T, W]` to `[B, T, W]`, or to `[B, 1, W]` if only the newest position is wanted.

        Args:
            bias: float32 `[B, 1, Q, T]`, added to the logits: `BLOCKED` where query Q must not see key T.
            ages: int32 `[B, Q, T]`, bucket of the time between them. Q is T, or 1 with `newest_only`.
        """
        normed = self.attention_norm(x)
        if newest_only:
            x = x[:, -1:]
        key, value = tf.split(self.key_value(normed), 2, axis=-1)
        query = self.query(normed[:, -1:] if newest_only else normed)
        query, key, value = self._split(query), self._split(key), self._split(value)  # (B, H, T, W / H)
        # In float32, as float16 cannot hold BLOCKED.
        logits = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32) * (query.shape[-1] ** -0.5)
        logits += bias  # (B, H, Q, T)
        if self.times:
            logits += tf.transpose(tf.cast(tf.gather(self.time_bias, ages), tf.float32), (0, 3, 1, 2))
        seen = tf.matmul(tf.cast(tf.nn.softmax(logits), value.dtype), value)  # (B, H, Q, W / H)
        x += self.attention_dropout(self.merge(self._join(seen)), training=training)
        hidden = self.expand(self.feed_forward_norm(x))
        return x + self.feed_forward_dropout(self.contract(hidden), training=training)

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        length, width = x.shape[1], x.shape[2]
        return tf.transpose(tf.reshape(x, (-1, length, self.heads, width // self.heads)), (0, 2, 1, 3))

    def _join(self, x: tf.Tensor) -> tf.Tensor:
        length, width = x.shape[2], x.shape[3]
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, length, self.heads * width))


class HistoryEncoder(keras.Model):
    """Histories → user vectors (at the newest position, or at every position for training), and the table of
    item vectors that they are multiplied with."""

    def __init__(
        self,
        config: ModelConfig,
        inputs: ItemInputs,
        *,
        attribute_rows: int = 1,
        behaviour: BehaviourConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """`attribute_rows` is `UserVocabulary.size`: 1 if nothing is known of users."""
        # Not cast by Keras, with mixed precision: the table is float32, whatever reads it.
        super().__init__(autocast=False, **kwargs)
        self.config, self.item_count = config, len(inputs.had) - 1
        behaviour = behaviour or BehaviourConfig()
        self.type_bias = _logarithms(behaviour.type_weights())
        self.half_life_s = (behaviour.interest_half_life_days or 0.0) * 86_400
        self.table = ItemTable(config, inputs, name="table")
        small = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(
            name="positions", shape=(config.history, config.width), initializer=small
        )
        if config.times:
            self.gaps = self.add_weight(name="gaps", shape=(TIME_BUCKETS, config.width), initializer=small)
        self.has_attributes = attribute_rows > 1
        if self.has_attributes:
            self.attributes = self.add_weight(
                name="attributes", shape=(attribute_rows, config.width), initializer=small
            )
        self.input_dropout = keras.layers.Dropout(config.dropout, name="input_dropout")
        self.blocks = [Block(config, name=f"block_{i}") for i in range(config.layers)]
        self.final_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="final_norm")

    def call(
        self, histories: Histories, table: tf.Tensor, newest_only: bool = False, training: bool = False
    ) -> tf.Tensor:
        """To float32 `[B, T, W]`, or `[B, W]`: the newest position.

        Position t of the output has seen events 0..t of the history and no padding. A row of padding only
        gets a finite vector, which depends on the user's attributes alone.

        Args:
            histories: of B users; `items` index `table`.
            table: float32 `[n, W]`, item vectors, those of `self.table` or some rows of it; row 0 is padding.
        """
        items = histories.items
        real = tf.not_equal(items, 0)
        x = tf.gather(table, items) * tf.cast(real, tf.float32)[..., None]  # (B, T, W)
        x = x * self.config.width**0.5 + tf.cast(self.positions, tf.float32)
        if self.config.times:
            gaps = tf.gather(self.gaps, time_bucket(histories.asked - histories.times))
            x += tf.cast(gaps, tf.float32) * self.config.width**0.5
        if self.has_attributes:
            # Row 0 is of unknown values: zero, so that who tells nothing is not taken for a kind of people.
            known = tf.cast(histories.features > 0, tf.float32)[..., None]
            rows = tf.cast(tf.gather(self.attributes, histories.features), tf.float32)
            about = tf.reduce_sum(rows * known, axis=1)  # (B, W)
            x += about[:, None] * self.config.width**0.5
        x = tf.cast(self.input_dropout(x, training=training), self.compute_dtype)
        for block in self.blocks[:-1]:
            x = block(x, *self._attention(histories, newest_only=False), training=training)
        attention = self._attention(histories, newest_only)
        x = self.blocks[-1](x, *attention, newest_only=newest_only, training=training)
        x = tf.cast(self.final_norm(x), tf.float32)
        return x[:, 0] if newest_only else x

    def _attention(self, histories: Histories, newest_only: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """What each position sees, and how long ago that was: bias and ages as `Block.call` wants them."""
        items, times, types, asked, _ = histories
        length = self.config.history
        positions = tf.range(length)[-1:] if newest_only else tf.range(length)  # (Q,)
        causal = tf.range(length)[None, :] <= positions[:, None]  # (Q, T)
        sees = tf.not_equal(items, 0)[:, None, :] & causal  # (B, Q, T)
        weight = tf.gather(self.type_bias, tf.where(types < len(self.type_bias), types, 0))  # (B, T)
        if self.half_life_s:
            # Before the newest event, not before the request: softmax ignores what all have in common.
            past_s = tf.cast(tf.maximum(times[:, -1:] - times, 0), tf.float32)
            weight += past_s * (-math.log(2.0) / self.half_life_s)
        bias = tf.where(sees, weight[:, None, :], BLOCKED)
        ages_s = (asked[:, -1:] if newest_only else asked)[:, :, None] - times[:, None, :]
        return bias[:, None], time_bucket(ages_s)

    def item_vectors(self) -> tf.Tensor:
        """float32 `[N, W]`: row i is item i of the catalogue (the padding row is left out)."""
        return self.table()[1:]


def build(
    config: ModelConfig,
    inputs: ItemInputs,
    *,
    attribute_rows: int = 1,
    behaviour: BehaviourConfig | None = None,
) -> HistoryEncoder:
    """A model with its variables made (weights depend on the seed of `keras.utils.set_random_seed`)."""
    # A fixed name: weights are saved by path.
    model = HistoryEncoder(config, inputs, attribute_rows=attribute_rows, behaviour=behaviour, name="encoder")
    zeros = tf.zeros((1, config.history), tf.int64)
    ids = tf.cast(zeros, tf.int32)
    model(Histories(ids, zeros, ids, zeros, tf.zeros((1, 1), tf.int32)), model.table(), training=False)
    return model


def asked_at(times: tf.Tensor, request_time: tf.Tensor) -> tf.Tensor:
    """When each position of a history is asked for what comes next: at the time of the event after it, the
    newest at the request. int64 `[B, T]` and `[B, 1]` to `[B, T]`."""
    return tf.concat([times[:, 1:], request_time], axis=1)


def time_bucket(seconds: tf.Tensor) -> tf.Tensor:
    """The doubling that a time falls into, int32: 0 for up to a second, 1 from there to three, and so on."""
    doublings = tf.math.log1p(tf.cast(tf.maximum(seconds, 0), tf.float32)) / math.log(2.0)
    return tf.cast(tf.minimum(doublings, TIME_BUCKETS - 1.0), tf.int32)


def _logarithms(weights: Sequence[float]) -> NDArray[np.float32]:
    """Of the weights of event types; 0 for those that are left out of histories anyway."""
    return np.log([weight or 1.0 for weight in weights]).astype(np.float32)
