"""What is known of an item besides who took it, as numbers: words, categories, vectors made elsewhere.

They give a vector to items that nobody took (`training.cold_items`). With `model.item_features` they are part
of all item vectors: a learned vector for each id, and a ReLU network over the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.model_config import ModelConfig
from training.text_cache import encode_cached
from training.text_encoder import open_text_encoder


@dataclass(frozen=True, slots=True, eq=False)
class ItemInputs:
    """The features of a catalogue."""

    values: NDArray[np.float32]
    """`[N + 1, P]`, row 0 is padding."""
    had: NDArray[np.bool_]
    """`[N + 1]`, whether anybody took the item in the training data: only then it has an id vector."""

    @property
    def width(self) -> int:
        """P."""
        return int(self.values.shape[1])


def item_inputs(
    config: ModelConfig,
    items: Sequence[CatalogItem],
    texts: Sequence[str],
    vectors: Mapping[str, NDArray[np.float32]],
    categories: Sequence[str],
    item_users: NDArray[np.int64],
    cache: Path,
) -> ItemInputs:
    """The features of a catalogue.

    Each group of columns (text, categories, every precomputed vector) is scaled to the same mean square,
    so that a wide one does not drown the others. The scale is of single rows, never of the whole catalogue:
    an item added later must not change the others.

    Args:
        config: says which language model reads the texts.
        items: `[N]`.
        texts: `[N]`, what the language model reads of each.
        vectors: by name, float32 `[N, w]`; a zero row where an item has none.
        categories: the columns of the category features, fixed when the model was trained.
        item_users: int `[N]`, training users of each item.
        cache: where text encoders and the vectors of texts are kept.

    Raises:
        NoTextEncoder: the text encoder cannot be had.
    """
    groups: list[NDArray[np.float32]] = []
    if config.text != "none":
        folder = cache / "text"
        encoded = encode_cached(open_text_encoder(config.text, folder), texts, folder)
        groups.append(encoded * np.float32(encoded.shape[1] ** 0.5))
    column_of = {category: column for column, category in enumerate(categories)}
    hot = np.zeros((len(items), len(categories)), np.float32)
    for row, item in zip(hot, items, strict=True):
        # A category that the model has not met says nothing to it.
        row[[column_of[c] for c in item.categories if c in column_of]] = 1.0
    groups.append(hot)
    for name in sorted(vectors):
        norms = np.linalg.norm(vectors[name], axis=1, keepdims=True)
        scale = np.float32(vectors[name].shape[1] ** 0.5)
        groups.append((vectors[name] / np.maximum(norms, 1e-12) * scale).astype(np.float32))
    values = np.concatenate([np.zeros((len(items), 0), np.float32), *groups], axis=1)
    return ItemInputs(np.pad(values, ((1, 0), (0, 0))), np.concatenate([[False], item_users > 0]))


class ItemTable(keras.layers.Layer):
    """Item vectors: learned ids, and a ReLU network over the features, added.

    In training whole id vectors are dropped now and then, so that the features learn to stand alone (Volkovs
    et al., "DropoutNet: Addressing Cold Start in Recommender Systems", NIPS 2017).
    """

    def __init__(self, config: ModelConfig, inputs: ItemInputs, **kwargs: Any) -> None:
        # All in float32, with mixed precision as well: it is what is exported.
        super().__init__(dtype="float32", **kwargs)
        self.ids = self.add_weight(name="ids", shape=(len(inputs.had), config.width), initializer=_small())
        self.has_features = config.item_features and inputs.width > 0
        if self.has_features:
            self.id_rate = config.id_dropout
            self.id_dropout = _dropout(self.id_rate, "id_dropout", noise_shape=(None, 1))
            self.feature_dropout = _dropout(config.feature_dropout, "feature_dropout")
            self.hidden = keras.layers.Dense(
                config.feature_hidden, activation="relu", dtype="float32", name="hidden"
            )
            self.project = keras.layers.Dense(
                config.width, kernel_initializer=_small(), dtype="float32", name="project"
            )
            self.hidden.build((None, inputs.width))
            self.project.build((None, config.feature_hidden))
        # Neither is a weight: they are read again from the catalogue, and must not be saved with the model.
        values = inputs.values if self.has_features else inputs.values[:, :0]
        had = inputs.had[:, None].astype(np.float32)
        self._constants = _Untracked(tf.Variable(values, trainable=False), tf.Variable(had, trainable=False))
        self.built = True

    def call(self, index: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """float32 `[n, W]` of the rows `index`, int32 `[n]`; all `[N + 1, W]` without one."""
        values, had = self._constants()
        ids: tf.Tensor = self.ids
        if index is not None:
            ids, values, had = (tf.gather(table, index) for table in (ids, values, had))
        vectors = ids * had
        if not self.has_features:
            return vectors
        vectors = self.id_dropout(vectors, training=training) * ((1.0 - self.id_rate) if training else 1.0)
        hidden = self.hidden(self.feature_dropout(values, training=training))
        return vectors + self.project(hidden)


class _Untracked:
    """Tensors that Keras and `tf.saved_model` do not see."""

    def __init__(self, *tensors: tf.Variable) -> None:
        self._tensors = tensors

    def __call__(self) -> tuple[tf.Variable, ...]:
        return self._tensors


def _dropout(rate: float, name: str, **options: Any) -> keras.layers.Dropout:
    return keras.layers.Dropout(rate, dtype="float32", name=name, **options)


def _small() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)
