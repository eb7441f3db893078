"""Vectors for items that nobody took: what items with the same words and categories turned out to be like.

A ridge regression from the features of items to the vectors that the model has learned for those with a
history (as in Gantner et al., "Learning Attribute-to-Feature Mappings for Cold-Start Recommendations", ICDM
2010). The expectation of a vector scores lower than the items that it is the expectation of: what makes some
of them popular is averaged away, and pages are made of the most popular. So a level is added to the scores of
such items, as high as lets them have, all together, the share of the probability that items like them really
have: it is found on items with a history whose vectors are predicted from the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FOLDS = 5
_PENALTIES = (10.0, 100.0, 1_000.0, 10_000.0)
_LEVELS = np.linspace(0.0, 6.0, 61)
_FEW = 50
"""With fewer items with a history there is nothing to learn a mapping from."""


@dataclass(frozen=True, slots=True, eq=False)
class ItemVectors:
    """The score of item i for a user is `user_vector · vectors[i] + levels[i]`."""

    vectors: NDArray[np.float32]
    """`[N + 1, W]`, row 0 is padding."""
    levels: NDArray[np.float32]
    """`[N + 1]`, 0 for items with a history."""


@dataclass(frozen=True, slots=True, eq=False)
class ColdMapping:
    """From features of items to vectors, and the level of the items that need it."""

    weights: NDArray[np.float32]
    """`[P + 1, W]`, the last row is the intercept."""
    level: float

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 `[n, P]` to `[n, W]`."""
        vectors: NDArray[np.float32] = features @ self.weights[:-1] + self.weights[-1]
        return vectors


def fit_mapping(
    features: NDArray[np.float32],
    vectors: NDArray[np.float32],
    item_users: NDArray[np.int64],
    user_vectors: NDArray[np.float32],
) -> ColdMapping | None:
    """The mapping of a trained model; None if fewer than 50 items have a history.

    Items count by the square root of their users: the vectors of those with few are mostly noise. The penalty
    is the one that predicts left-out items best.

    Args:
        features: float32 `[N, P]`.
        vectors: float32 `[N, W]`, as trained.
        item_users: int `[N]`, training users of each item.
        user_vectors: float32 `[B, W]`, a sample of requests.
    """
    had = np.flatnonzero(item_users)
    if len(had) < _FEW:
        return None
    x = np.concatenate([features[had], np.ones((len(had), 1), np.float32)], axis=1).astype(np.float64)
    y, weight = vectors[had].astype(np.float64), np.sqrt(item_users[had].astype(np.float64))
    weight = weight / weight.mean()
    fold_of = np.arange(len(had)) % _FOLDS  # items are in order of id: as good as random
    fits = {}
    for penalty in _PENALTIES:
        predicted = np.empty_like(y)
        for fold in range(_FOLDS):
            out = fold_of == fold
            predicted[out] = x[out] @ _ridge(x[~out], y[~out], weight[~out], penalty)
        fits[penalty] = (np.average(((predicted - y) ** 2).sum(axis=1), weights=weight), predicted)
    penalty = min(fits, key=lambda each: fits[each][0])
    level = _level(y, fits[penalty][1], fold_of, user_vectors.astype(np.float64))
    return ColdMapping(_ridge(x, y, weight, penalty).astype(np.float32), level)


def with_mapping(
    trained: NDArray[np.float32],
    had: NDArray[np.bool_],
    features: NDArray[np.float32],
    mapping: ColdMapping | None,
) -> ItemVectors:
    """The trained vectors, with those of the mapping where nobody took the item.

    Args:
        trained: float32 `[N + 1, W]`.
        had: bool `[N + 1]`, row 0, padding, is false.
        features: float32 `[N + 1, P]`.
        mapping: None: such items keep the zero vector of an item of which nothing is known.
    """
    vectors, levels = trained.copy(), np.zeros(len(trained), np.float32)
    vectors[0] = 0.0
    cold = ~had
    cold[0] = False
    if mapping is not None and cold.any():
        vectors[cold] = mapping(features[cold])
        levels[cold] = mapping.level
    return ItemVectors(vectors, levels)


def _ridge(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64], penalty: float
) -> NDArray[np.float64]:
    """Weights `[P + 1, W]`; the intercept, the last row, is not penalised."""
    weighted = x * weight[:, None]
    gram = weighted.T @ x
    diagonal = np.arange(len(gram) - 1)
    gram[diagonal, diagonal] += penalty
    gram[-1, -1] += 1e-9
    return np.asarray(np.linalg.solve(gram, weighted.T @ y), np.float64)


def _level(
    own: NDArray[np.float64],
    predicted: NDArray[np.float64],
    fold_of: NDArray[np.int64],
    users: NDArray[np.float64],
) -> float:
    """What is to be added to the scores of predicted items, so that those of a fold, in the place of the real
    ones, get the share of the softmax that these have; the median over the folds."""
    if not len(users):
        return 0.0
    real = users @ own.T  # (B, n)
    guessed = users @ predicted.T
    top = np.maximum(real.max(axis=1), guessed.max(axis=1))[:, None]
    real, guessed = np.exp(real - top), np.exp(guessed - top)
    found = []
    for fold in range(_FOLDS):
        inside = fold_of == fold
        others = real[:, ~inside].sum(axis=1)
        own_mass, guessed_mass = real[:, inside].sum(axis=1), guessed[:, inside].sum(axis=1)
        wanted = (own_mass / (own_mass + others)).mean()
        lifted = guessed_mass[:, None] * np.exp(_LEVELS)
        shares = (lifted / (lifted + others[:, None])).mean(axis=0)  # ascending
        found.append(_LEVELS[min(np.searchsorted(shares, wanted), len(_LEVELS) - 1)])
    return float(np.median(found))
