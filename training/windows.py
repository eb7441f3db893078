"""Training windows: pieces of histories, cut, shuffled and batched by `tf.data`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.model_inputs import left_padded
from training.dataset import History, Prepared
from training.splits import Split
from training.user_features import UserVocabulary

if TYPE_CHECKING:  # a run that reuses everything must not wait for the import
    import tensorflow as tf

_SHUFFLED_WINDOWS = 20_000
"""Windows held for shuffling; at 200 events each about 70 MB."""

Arrays = dict[str, NDArray[np.generic]]


def training_windows(
    prepared: Prepared,
    split: Split,
    vocabulary: UserVocabulary,
    *,
    history: int,
    batch_size: int,
    seed: int,
) -> tf.data.Dataset:
    """Batches of training windows; the last one may be smaller.

    Columns `[:-1]` of `items` are an input and columns `[1:]` its targets, so that every position predicts
    the next item, asked for at the time of that. A history longer than a window is cut into windows from the
    newest event backwards, so that every event but a user's first is a target exactly once (and the first,
    too, where the model is told attributes to predict it from). The same seed gives the same order; give each
    epoch its own.

    Returns:
        Batches of `items` int32 `[b, history + 1]`, left-padded with 0, `times` int64 and `types` int32
        alike, and `features` int32 `[b, F]`.
    """
    import tensorflow as tf

    width = history + 1

    def windows() -> Iterator[Arrays]:
        for user in prepared.histories():
            # Only then: were what is held out to depend on the draw, some epoch would train on it.
            part = split.training_part(user).redrawn(prepared.keys, seed)
            if len(part) >= 2:
                yield _windows(part, vocabulary, width)

    spec = {
        "items": tf.TensorSpec((None, width), tf.int32),
        "times": tf.TensorSpec((None, width), tf.int64),
        "types": tf.TensorSpec((None, width), tf.int32),
        "features": tf.TensorSpec((None, vocabulary.attributes), tf.int32),
    }
    return (
        tf.data.Dataset.from_generator(windows, output_signature=spec)
        .unbatch()
        .shuffle(_SHUFFLED_WINDOWS, seed=seed, reshuffle_each_iteration=False)
        .batch(batch_size)
        .prefetch(2)
    )


def newest_windows(
    prepared: Prepared,
    split: Split,
    vocabulary: UserVocabulary,
    *,
    history: int,
    seed: int,
) -> Arrays:
    """The newest window of every user who has one, as `training_windows` gives them, `[U, history + 1]`.

    All are held at once, for any of them may be in any batch of a Poisson sample: 16 bytes for each position.
    """
    width = history + 1
    parts = (split.training_part(user).redrawn(prepared.keys, seed) for user in prepared.histories())
    rows = [
        {name: values[:1] for name, values in _windows(part, vocabulary, width).items()}
        for part in parts
        if len(part) >= 2
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def cut_windows(values: NDArray[np.generic], width: int) -> NDArray[np.generic]:
    """One history `[L]`, L ≥ 2, as windows `[n, width]`, left-padded, from the newest event backwards.

    Neighbours share one event: the last target of the older window is the first input of the newer one.
    """
    ends = range(len(values), 1, 1 - width)
    return left_padded([values[max(0, end - width) : end] for end in ends], width, values.dtype)


def _windows(user: History, vocabulary: UserVocabulary, width: int) -> Arrays:
    items = cut_windows(user.items, width)
    features = vocabulary.of_users([user.features])
    return {
        "items": items,
        "times": cut_windows(user.times, width),
        "types": cut_windows(user.types.astype(np.int32), width),
        "features": np.repeat(features, len(items), axis=0),
    }
