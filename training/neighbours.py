"""The items that are most like an item, by the cosine of their vectors: what `SimilarItems` answers.

Without an index every pair is compared. With one an item is compared with those of the lists that lie nearest
to its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.index import Index

_NEAREST_LISTS = 16
_PAIRS_AT_ONCE = 2**24


def neighbours(
    vectors: NDArray[np.float32], count: int, index: Index | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For each item the `count` others with the highest cosine, nearest first.

    Args:
        vectors: float32 `[N, W]`.
        count: at most N - 1.

    Returns:
        Their positions, int32 `[N, count]`, and the cosines; -1 and 0 where the lists nearest to an item's
        hold no more others.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = np.full((len(vectors), count), -1, np.int32), np.zeros((len(vectors), count), np.float32)
    if not count:
        return near
    if index is None:
        everything = np.arange(len(vectors))
        rows = max(1, _PAIRS_AT_ONCE // len(vectors))
        for start in range(0, len(vectors), rows):
            _fill(near, unit, everything[start : start + rows], everything, count)
        return near
    means = index.means / np.maximum(np.linalg.norm(index.means, axis=1, keepdims=True), 1e-12)
    for at, mean in enumerate(means):
        own = index.items[at][index.items[at] > 0] - 1
        lists = np.argsort(-(means @ mean), kind="stable")[:_NEAREST_LISTS]
        others = index.items[np.union1d(lists, [at])]
        others = np.sort(others[others > 0]) - 1
        rows = max(1, _PAIRS_AT_ONCE // max(1, len(others)))
        for start in range(0, len(own), rows):
            _fill(near, unit, own[start : start + rows], others, count)
    return near


def _fill(
    near: tuple[NDArray[np.int32], NDArray[np.float32]],
    unit: NDArray[np.float32],
    own: NDArray[np.integer],
    others: NDArray[np.integer],
    count: int,
) -> None:
    """The nearest of `others`, ascending positions that hold all of `own`, for each of `own`."""
    cosine = unit[own] @ unit[others].T
    cosine[np.arange(len(own)), np.searchsorted(others, own)] = -np.inf
    kept = min(count, len(others) - 1)
    if not kept:
        return
    best = np.argpartition(-cosine, kept - 1, axis=1)[:, :kept]
    scores = np.take_along_axis(cosine, best, axis=1)
    order = np.lexsort((best, -scores), axis=1)
    near[0][own, :kept] = others[np.take_along_axis(best, order, axis=1)]
    near[1][own, :kept] = np.take_along_axis(scores, order, axis=1)
