"""The sequence model: a causal transformer that turns a history of items into a user vector.

SASRec (Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018) with pre-norm blocks (Xiong et
al., "On Layer Normalization in the Transformer Architecture", ICML 2020). The item embedding is tied: it
reads the history and scores the candidates, so the score of item i is `user_vector · item_vectors[i]`.

Inside a model an item is an index: 0 is padding, item `i` of the catalogue is `i + 1`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from training.config import ModelConfig

BLOCKED = -1e9
"""Added to the attention logit of what must not be seen; finite, so a row that sees nothing stays finite."""


class Block(keras.layers.Layer):
    """One pre-norm block: causal self-attention, then a feed-forward network, each with a residual."""

    def __init__(self, config: ModelConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
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

    def call(
        self, x: tf.Tensor, blocked: tf.Tensor, newest_only: bool = False, training: bool = False
    ) -> tf.Tensor:
        """float32 `[B, T, W]` to `[B, T, W]`, or to `[B, 1, W]` if only the newest position is wanted.

        `blocked` is float32 `[B, 1, T, T]`: `BLOCKED` where a query (third axis) must not see a key (fourth),
        else 0.
        """
        normed = self.attention_norm(x)
        if newest_only:
            x, blocked = x[:, -1:], blocked[:, :, -1:]
        key, value = tf.split(self.key_value(normed), 2, axis=-1)
        query = self.query(normed[:, -1:] if newest_only else normed)
        query, key, value = self._split(query), self._split(key), self._split(value)  # (B, H, T, W / H)
        logits = tf.matmul(query, key, transpose_b=True) * (query.shape[-1] ** -0.5) + blocked  # (B, H, T, T)
        seen = tf.matmul(tf.nn.softmax(logits), value)  # (B, H, T, W / H)
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
    """History of item indices → user vector (at the newest position, or at every position for training)."""

    def __init__(self, config: ModelConfig, item_count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config, self.item_count = config, item_count
        self.items = self.add_weight(
            name="items",
            shape=(item_count + 1, config.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.positions = self.add_weight(
            name="positions",
            shape=(config.history, config.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )
        self.input_dropout = keras.layers.Dropout(config.dropout, name="input_dropout")
        self.blocks = [Block(config, name=f"block_{i}") for i in range(config.layers)]
        self.final_norm = keras.layers.LayerNormalization(epsilon=1e-5, name="final_norm")

    def call(self, history: tf.Tensor, newest_only: bool = False, training: bool = False) -> tf.Tensor:
        """int32 `[B, T]`, oldest first, left-padded with 0, to float32 `[B, T, W]` (or `[B, W]`: the newest
        position).

        Position t of the output has seen items 0..t of the history and no padding. A row of padding only gets
        a finite vector: the same one for every such row.
        """
        length = self.config.history
        real = tf.not_equal(history, 0)
        x = tf.gather(self.items, history) * tf.cast(real, tf.float32)[..., None]  # (B, T, W)
        x = x * self.config.width**0.5 + self.positions
        x = self.input_dropout(x, training=training)
        causal = tf.linalg.band_part(tf.ones((length, length), tf.bool), -1, 0)
        blocked = tf.where(real[:, None, None, :] & causal, 0.0, BLOCKED)  # (B, 1, T, T)
        for block in self.blocks[:-1]:
            x = block(x, blocked, training=training)
        x = self.blocks[-1](x, blocked, newest_only=newest_only, training=training)
        x = self.final_norm(x)
        return x[:, 0] if newest_only else x

    @property
    def item_vectors(self) -> tf.Tensor:
        """float32 `[N, W]`: row i is item i of the catalogue (the padding row is left out)."""
        return self.items[1:]


def build(config: ModelConfig, item_count: int) -> HistoryEncoder:
    """A model with its variables made (weights depend on the seed of `keras.utils.set_random_seed`)."""
    model = HistoryEncoder(config, item_count, name="encoder")  # a fixed name: weights are saved by path
    model(tf.zeros((1, config.history), tf.int32))
    return model
