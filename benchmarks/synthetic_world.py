"""A seeded world to recommend in, of any size: items in clusters, users whose interests drift.

Cluster sizes and the popularity of items within a cluster follow Zipf's law, roughly; so do logs of shops and
media. A user stays with a cluster for some ten events and goes on to another, likelier a large one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.catalog import CatalogItem

CATEGORIES = 20
_MOST_CLUSTERS = 500
_STAYS = 0.9
"""Chance that a user's next event is of the same cluster."""
_HEAD = 3.0
"""The higher, the more of a cluster's events are on its most popular items."""
_DAY_S = 86_400
_LAST_EVENT_DAYS = (2.0, 30.0)
"""Before now: the ages of events, in doublings, are then the same over a benchmark."""
_USERS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """N items in K clusters."""

    seed: int
    cluster_of: NDArray[np.int32]
    """`[N]`."""
    order: NDArray[np.int32]
    """`[N]`, items by cluster, the most popular of a cluster first."""
    starts: NDArray[np.int64]
    """`[K + 1]`, where each cluster begins in `order`."""

    @property
    def item_count(self) -> int:
        """N."""
        return len(self.cluster_of)

    def item_id(self, index: int) -> str:
        """The id of an item, by its place from 0."""
        return f"item-{index}"

    def items(self) -> list[CatalogItem]:
        """The catalogue."""
        return [
            CatalogItem(
                self.item_id(i), f"Item {i} of cluster {cluster}", (f"category-{cluster % CATEGORIES}",)
            )
            for i, cluster in enumerate(self.cluster_of.tolist())
        ]

    def vectors(self, width: int) -> NDArray[np.float32]:
        """float32 `[N + 1, width]`, row 0, padding, is zero: around the centres of the clusters."""
        draw = np.random.default_rng([self.seed, width])
        centres = draw.normal(size=(len(self.starts) - 1, width)).astype(np.float32)
        vectors = np.zeros((self.item_count + 1, width), np.float32)
        noise = draw.standard_normal(size=(self.item_count, width), dtype=np.float32)
        vectors[1:] = (0.8 * centres[self.cluster_of] + 0.6 * noise) * np.float32(width**-0.5)
        return vectors

    def users_of_items(self) -> NDArray[np.int64]:
        """int64 `[N]`, of how many events each item is, in expectation, out of 10^5 by `histories`."""
        sizes = np.diff(self.starts)
        place = np.arange(self.item_count) - np.repeat(self.starts[:-1], sizes)
        share = ((place + 1) / np.repeat(sizes, sizes)) ** (1 / _HEAD) - (
            place / np.repeat(sizes, sizes)
        ) ** (1 / _HEAD)
        users = np.zeros(self.item_count, np.int64)
        users[self.order] = 1 + (share * np.repeat(_shares(len(sizes)), sizes) * 1e5).astype(np.int64)
        return users

    def histories(
        self, users: int, length: int, now: int, seed: int = 1
    ) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        """Of each user the id, items (places from 0) and times, int64 `[length]` each, oldest first."""
        for start in range(0, users, _USERS_AT_ONCE):
            draw = np.random.default_rng([self.seed, seed, start])
            count = min(_USERS_AT_ONCE, users - start)
            items = self._drifting(draw, count, length)
            gaps = draw.exponential(3600.0, (count, length)).astype(np.int64) + 1
            last = now - (draw.uniform(*_LAST_EVENT_DAYS, count) * _DAY_S).astype(np.int64)
            times = last[:, None] - np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1]
            for row in range(count):
                yield f"user-{start + row}", items[row], times[row]

    def _drifting(self, draw: np.random.Generator, count: int, length: int) -> NDArray[np.int64]:
        """Items int64 `[count, length]`."""
        clusters = len(self.starts) - 1
        wished = draw.choice(clusters, (count, length), p=_shares(clusters))
        moves = draw.random((count, length)) >= _STAYS
        moves[:, 0] = True
        since = np.maximum.accumulate(np.where(moves, np.arange(length), 0), axis=1)
        cluster = np.take_along_axis(wished, since, axis=1)
        sizes = np.diff(self.starts)[cluster]
        place = (sizes * draw.random((count, length)) ** _HEAD).astype(np.int64)
        places = self.starts[cluster] + np.minimum(place, sizes - 1)
        return np.asarray(self.order[places], np.int64)


def make_world(items: int, seed: int = 1) -> World:
    """A world with that many items; the same one for the same seed."""
    clusters = int(np.clip(items // 20, 1, _MOST_CLUSTERS))
    draw = np.random.default_rng([seed, items])
    # One item for each cluster first: none is empty.
    rest = draw.choice(clusters, items - clusters, p=_shares(clusters))
    cluster_of = draw.permutation(np.concatenate([np.arange(clusters), rest])).astype(np.int32)
    order = np.argsort(cluster_of, kind="stable").astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(cluster_of, minlength=clusters))]).astype(np.int64)
    return World(seed, cluster_of, order, starts)


def _shares(clusters: int) -> NDArray[np.float64]:
    """float64 `[clusters]`, of sum 1: Zipf's law."""
    weights = 1.0 / np.arange(1, clusters + 1)
    return np.asarray(weights / weights.sum())
