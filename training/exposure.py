"""What the lists of a ranker show, wanted or not: coverage, novelty, diversity, popularity bias.

The definitions are those of Castells, Hurley & Vargas, "Novelty and Diversity in Recommender Systems",
Recommender Systems Handbook 2015, where none other is named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.catalog import CatalogItem

_FLOATS_AT_ONCE = 2**22
"""Vectors gathered at once for the distances within lists (float32: 16 MB)."""


class Exposure:
    """The lists of one length, taken in batch by batch."""

    def __init__(self, item_count: int, vectors: NDArray[np.float32] | None = None) -> None:
        """`vectors` is float32 `[N, D]`, what the distance of items is measured by; None: it is not."""
        self._shown = np.zeros(item_count, np.int64)
        self._unit = None if vectors is None else _unit(vectors)
        self._distance, self._lists = 0.0, 0

    def add(self, ranked: NDArray[np.integer]) -> None:
        """Takes in lists, int `[B, k]`, of catalogue positions from 0."""
        self._shown += np.bincount(ranked.ravel(), minlength=len(self._shown))
        if self._unit is not None:
            distances = _distances(ranked, self._unit)
            self._distance += float(np.nansum(distances))
            self._lists += int(np.count_nonzero(~np.isnan(distances)))

    def figures(self, item_users: NDArray[np.integer], users: int) -> dict[str, float]:
        """`coverage`, `novelty`, `popularity`, `gini`, and `intra_list_distance` if some list has one.

        Args:
            item_users: int `[N]`, training users with each item.
            users: training users.
        """
        figures = {
            "coverage": coverage(self._shown),
            "novelty": novelty(self._shown, item_users, users),
            "popularity": popularity_bias(self._shown, item_users),
            "gini": gini(self._shown),
        }
        return figures | ({"intra_list_distance": self._distance / self._lists} if self._lists else {})


def coverage(shown: NDArray[np.integer]) -> float:
    """Share of the catalogue that some list shows; `shown` is how often each item was, int `[N]`."""
    return float(np.count_nonzero(shown)) / len(shown)


def novelty(shown: NDArray[np.integer], item_users: NDArray[np.integer], users: int) -> float:
    """Mean self-information of the items shown, in bits: −log2 of the share of the training users who had the
    item.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010. An item
    nobody had counts as had by one user, so that the value stays finite.

    Args:
        shown: int `[N]`, how often each item was shown.
        item_users: int `[N]`, training users with each item.
        users: training users.
    """
    information = -np.log2(np.maximum(item_users, 1) / users)
    return float(np.average(information, weights=shown)) if shown.any() else 0.0


def popularity_percentiles(item_users: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of the catalogue that is less popular than each item, equally popular ones counted half:
    float64 `[N]`, within 0 and 1, mean 0.5."""
    _, which, counts = np.unique(item_users, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    return np.asarray((below + counts / 2)[which] / max(1, len(item_users)), np.float64)


def popularity_deciles(item_users: NDArray[np.integer]) -> NDArray[np.int8]:
    """The decile of each item among those with a training user, 1 the least and 10 the most popular, by
    `popularity_percentiles`; 0 for items that nobody had: int8 `[N]`."""
    deciles = np.zeros(len(item_users), np.int8)
    warm = item_users > 0
    percentiles = popularity_percentiles(item_users[warm])
    deciles[warm] = np.minimum(10, np.floor(10 * percentiles) + 1)
    return deciles


def popularity_bias(shown: NDArray[np.integer], item_users: NDArray[np.integer]) -> float:
    """Mean popularity percentile of what is shown: 0.5 for items drawn by lot, near 1 for best-sellers only.

    After Abdollahpouri et al., "The Unfairness of Popularity Bias in Recommendation", RMSE 2019, with the
    percentile for the share of users, so that figures of different catalogues compare.
    """
    percentiles = popularity_percentiles(item_users)
    return float(np.average(percentiles, weights=shown)) if shown.any() else 0.0


def gini(shown: NDArray[np.integer]) -> float:
    """How unequally the catalogue is shown: 0 if every item is as often, 1 − 1/N if it is one item always."""
    count, total = len(shown), int(shown.sum())
    if not total:
        return 0.0
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ np.sort(shown).astype(np.float64)) / (count * total)


def intra_list_distances(ranked: NDArray[np.integer], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each list, one minus the mean cosine of its pairs of items (Ziegler et al., "Improving
    Recommendation Lists Through Topic Diversification", WWW 2005).

    An item whose vector is zero is like nothing and unlike nothing: it is left out of its list.

    Args:
        ranked: int `[B, k]`, catalogue positions from 0.
        vectors: float32 `[N, D]`, of any length.

    Returns:
        float64 `[B]`; NaN for a list with fewer than two items that have a vector.
    """
    return _distances(ranked, _unit(vectors))


def category_vectors(items: Sequence[CatalogItem], categories: Sequence[str]) -> NDArray[np.float32]:
    """Which categories each item has, float32 `[N, C]` of 0 and 1: a space that is no model's own."""
    column = {category: i for i, category in enumerate(categories)}
    vectors = np.zeros((len(items), len(categories)), np.float32)
    for row, item in zip(vectors, items, strict=True):
        row[[column[category] for category in item.categories]] = 1.0
    return vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0), np.float32)


def _distances(ranked: NDArray[np.integer], unit: NDArray[np.float32]) -> NDArray[np.float64]:
    distances = np.full(len(ranked), np.nan)
    rows = max(1, _FLOATS_AT_ONCE // max(1, ranked.shape[1] * unit.shape[1]))
    for start in range(0, len(ranked), rows):
        vectors = unit[ranked[start : start + rows]].astype(np.float64)  # (b, k, D)
        able = np.count_nonzero(vectors.any(axis=2), axis=1)
        # The square of the sum of unit vectors is their number plus twice the cosine of each pair.
        twice = (vectors.sum(axis=1) ** 2).sum(axis=1) - able
        pairs = able * (able - 1)
        some = distances[start : start + rows]
        some[pairs > 0] = 1.0 - twice[pairs > 0] / pairs[pairs > 0]
    return distances
