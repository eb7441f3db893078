"""Balanced k-means: points in lists of which none is longer than the others are allowed to be.

Lists of one length make what is searched one dense block. Lloyd's iterations on a sample, in which the
centroids of the shortest lists move into the longest ones; then every point goes to the nearest centroid with
room, the closer ones first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 8
_SAMPLED = 32
"""Points per list that the centroids are found with."""
_SHORT, _LONG = 0.4, 1.6
"""Of the mean length: what is below and above it swaps a centroid."""
_CHOICES = 8
"""Nearest lists that a point is offered to, before it goes wherever there is room."""
_BLOCK = 2**25
"""Distances that are held at once: 128 MiB."""


def balanced_lists(
    points: NDArray[np.float32], lists: int, capacity: NDArray[np.int64], seed: int = 0
) -> NDArray[np.int64]:
    """The list of each point, int64 `[n]`.

    Args:
        points: float32 `[n, W]`.
        lists: how many, at most n.
        capacity: int64 `[lists]`, places in each; all together at least n.
    """
    centroids = _centroids(points, lists, np.random.default_rng(seed))
    half = 0.5 * np.einsum("lw,lw->l", centroids, centroids)
    first = nearest(points, centroids, half, 1)
    chosen, room = np.full(len(points), -1, np.int64), capacity.copy()
    left = _settled(np.arange(len(points)), first[:, 0], points, centroids, half, chosen, room)
    others = nearest(points[left], centroids, half, min(_CHOICES, lists))
    of_point = np.zeros(len(points), np.int64)
    of_point[left] = np.arange(len(left))
    for choice in range(1, others.shape[1]):
        left = _settled(left, others[of_point[left], choice], points, centroids, half, chosen, room)
    # Many points in one place (items of which nothing is known have all one vector) fill list after list.
    left = left[np.argsort(first[left, 0], kind="stable")]
    chosen[left] = np.repeat(np.arange(lists), room)[: len(left)]
    return chosen


def nearest(
    points: NDArray[np.float32], centroids: NDArray[np.float32], half: NDArray[np.float32], count: int
) -> NDArray[np.int32]:
    """The lists with the nearest centroids, int32 `[n, count]`, nearest first.

    Args:
        points: float32 `[n, W]`.
        centroids: float32 `[lists, W]`.
        half: float32 `[lists]`, half of each centroid's squared length.
    """
    found = np.empty((len(points), count), np.int32)
    rows = max(1, _BLOCK // len(centroids))
    for start in range(0, len(points), rows):
        some = slice(start, start + rows)
        near = points[some] @ centroids.T - half
        if count == 1:
            found[some, 0] = near.argmax(axis=1)
            continue
        best = np.argpartition(-near, count - 1, axis=1)[:, :count]
        order = np.lexsort((best, -np.take_along_axis(near, best, axis=1)), axis=1)
        found[some] = np.take_along_axis(best, order, axis=1)
    return found


def _settled(
    left: NDArray[np.int64],
    wanted: NDArray[np.int32],
    points: NDArray[np.float32],
    centroids: NDArray[np.float32],
    half: NDArray[np.float32],
    chosen: NDArray[np.int64],
    room: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Gives the points `left` the lists that they want as far as there is room, the closer ones first; those
    that got none."""
    near = np.einsum("nw,nw->n", points[left], centroids[wanted]) - half[wanted]
    order = np.lexsort((-near, wanted))
    starts = np.searchsorted(wanted[order], np.arange(len(room)))
    fits = np.arange(len(order)) - starts[wanted[order]] < room[wanted[order]]
    got = order[fits]
    chosen[left[got]] = wanted[got]
    room -= np.bincount(wanted[got], minlength=len(room))
    return left[order[~fits]]


def _centroids(points: NDArray[np.float32], lists: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """float32 `[lists, W]`."""
    sample = points[draw.choice(len(points), min(len(points), _SAMPLED * lists), replace=False)]
    centroids = sample[draw.choice(len(sample), lists, replace=False)]
    for iteration in range(_ITERATIONS):
        half = 0.5 * np.einsum("lw,lw->l", centroids, centroids)
        own = nearest(sample, centroids, half, 1)[:, 0]
        order = np.argsort(own, kind="stable")
        lengths = np.bincount(own, minlength=lists)
        starts = np.cumsum(lengths) - lengths
        taken = lengths > 0
        centroids = centroids.copy()
        centroids[taken] = (
            np.add.reduceat(sample[order], starts[taken], axis=0) / lengths[taken, None]
        ).astype(np.float32)
        if iteration < _ITERATIONS - 2:  # the last two settle what was moved
            _spread(centroids, sample, order, starts, lengths, draw)
    return centroids


def _spread(
    centroids: NDArray[np.float32],
    sample: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    draw: np.random.Generator,
) -> None:
    """Moves the centroids of the shortest lists into the longest ones, each of which is then two."""
    by_length, mean = np.argsort(lengths, kind="stable"), len(sample) / len(lengths)
    moved = min(int((lengths < _SHORT * mean).sum()), int((lengths > _LONG * mean).sum()))
    for short, long in zip(by_length[:moved], by_length[::-1][:moved], strict=True):
        one, other = sample[draw.choice(order[starts[long] : starts[long] + lengths[long]], 2, replace=False)]
        centroids[short] = (centroids[long] + one) / 2
        centroids[long] = (centroids[long] + other) / 2
