"""What a transformer has to beat: popularity, item-kNN, EASE^R, trained and judged as the model is.

The linear models count which items are had together, in a dense matrix of items × items. Above `MAX_ITEMS`
that no longer fits a small machine, and they are left out of the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import History
from training.splits import Case

MAX_ITEMS = 8_000
"""Largest catalogue for the models that keep matrices of items × items. Fitting them takes 37 bytes for each
pair of items (measured with 2,000 to 4,000), here 2.4 GB: `numpy.linalg.inv` needs four float64 matrices, and
the counts are float32."""

RECENT = 5.0
"""Half-life, in events, of the recency-weighted EASE^R: the best on the validation part of MovieLens-100K."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What the baselines learn from, gathered in one pass over the training histories."""

    users: int
    item_users: NDArray[np.int64]
    """`[N]`, users with each item."""
    first_times: NDArray[np.int64]
    """`[N]`, unix seconds of each item's first event, 0 if it has none."""
    together: NDArray[np.float32] | None
    """`[N, N]`, users with both items; None above `MAX_ITEMS`, or if not wanted."""


def count(histories: Iterable[History], item_count: int, *, pairs: bool = True) -> Counts:
    """Counts each user once per item, however often they had it. Without `pairs`, `together` is None."""
    users, item_users = 0, np.zeros(item_count, np.int64)
    never = np.iinfo(np.int64).max
    first_times = np.full(item_count, never)
    together = np.zeros((item_count, item_count), np.float32) if pairs and item_count <= MAX_ITEMS else None
    for history in histories:
        had = np.unique(history.items) - 1
        users += 1
        item_users[had] += 1
        np.minimum.at(first_times, history.items - 1, history.times)
        if together is not None:
            together[np.ix_(had, had)] += 1
    return Counts(users, item_users, np.where(first_times == never, 0, first_times), together)


class Popularity:
    """The same list for everybody: items by the number of users who had them."""

    name = "popularity"

    def __init__(self, counts: Counts) -> None:
        self._scores = counts.item_users.astype(np.float32)

    def scores(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """float32 `[B, N]`."""
        return np.tile(self._scores, (len(cases), 1))


class _ItemToItem:
    """A score is the sum, over the items of the history, of their weights for the item scored."""

    def __init__(self, weights: NDArray[np.float32], half_life: float = math.inf) -> None:
        """`weights` is float32 `[N, N]`; an item of a history counts half after `half_life` more events."""
        self._weights, self._half_life = weights, half_life

    def scores(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """float32 `[B, N]`."""
        had = np.zeros((len(cases), len(self._weights)), np.float32)
        for row, case in zip(had, cases, strict=True):
            age = np.arange(len(case.known) - 1, -1, -1)
            row[case.known.items - 1] = 0.5 ** (age / self._half_life)
        return had @ self._weights


class ItemKNN(_ItemToItem):
    """Cosine of the items' user sets, each item's nearest `neighbours` only (Deshpande & Karypis, "Item-Based
    Top-N Recommendation Algorithms", TOIS 2004)."""

    name = "item-kNN"

    def __init__(self, counts: Counts, neighbours: int = 100) -> None:
        assert counts.together is not None
        norms = np.sqrt(np.maximum(counts.item_users, 1)).astype(np.float32)
        cosine = counts.together / norms
        cosine /= norms[:, None]
        np.fill_diagonal(cosine, 0.0)
        if neighbours < len(cosine):
            far = np.argpartition(-cosine, neighbours, axis=0)[neighbours:]
            np.put_along_axis(cosine, far, 0.0, axis=0)
        super().__init__(cosine)


class EASE(_ItemToItem):
    """The linear autoencoder EASE^R (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019).

    With a half-life it knows what the transformer knows of order: which items are recent.
    """

    def __init__(self, weights: NDArray[np.float32], half_life: float = math.inf) -> None:
        """`weights` are those of `ease_weights`; any half-life can share them."""
        super().__init__(weights, half_life)
        self.name = "EASE^R" if half_life == math.inf else "EASE^R, recent first"


def ease_weights(counts: Counts, l2: float = 300.0) -> NDArray[np.float32]:
    """The weights of EASE^R in closed form, float32 `[N, N]`."""
    assert counts.together is not None
    gram = counts.together.astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    weights = np.linalg.inv(gram)
    del gram
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def fit_baselines(counts: Counts) -> list[Popularity | ItemKNN | EASE]:
    """All baselines that this catalogue is small enough for."""
    if counts.together is None:
        return [Popularity(counts)]
    weights = ease_weights(counts)  # first, as it takes the most memory
    return [Popularity(counts), ItemKNN(counts), EASE(weights), EASE(weights, RECENT)]
