"""An inverted file: the items of a large catalogue in lists of like ones; a request looks through some.

Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011, section IV, without the
quantiser. What is wanted is the largest inner product, not the nearest vector. The lists are those of plain
k-means nevertheless, and are compared by the best item that each may hold, not by its mean. Level and lift of
items count as one more coordinate, as they are part of the score (docs/decisions/0022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.index_lists import balanced_lists
from training.model_config import Freshness, Storage

SLACK = 1.2
"""Places in the lists, per item."""
FEWEST_PROBES = 8
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Items in L lists of one length, and what is known of a list as a whole."""

    items: NDArray[np.int32]
    """`[L, P]`: catalogue index of each place, from 1; 0: an empty place. The first place of all is empty."""
    means: NDArray[np.float32]
    """`[L, W]`: mean vector of a list."""
    spreads: NDArray[np.float32]
    """`[L]`: standard deviation of the list's vectors, in one direction."""
    levels: NDArray[np.float32]
    """`[L, 2]`: mean and standard deviation of the levels."""
    lifts: NDArray[np.float32]
    """`[L, 2]`: mean and standard deviation of what new items are lifted by at `time`."""
    time: int
    """Unix seconds."""
    probes: int = FEWEST_PROBES
    """Lists that a request without a filter looks through."""
    storage: Storage = "float32"
    """What vectors are looked through as; the scores of what is found are float32 in any case."""
    narrow: int = 2**13
    """A filter that no more items than this pass is answered from all of these, without the lists."""

    @property
    def lists(self) -> int:
        """L."""
        return len(self.items)

    @property
    def capacity(self) -> int:
        """P, places in a list."""
        return int(self.items.shape[1])


def usual_lists(items: int) -> int:
    """The power of two next to four times the square root: with some tens of lists probed, comparing lists
    costs about as much as comparing what they hold."""
    return 1 << max(0, round(math.log2(4 * math.sqrt(items))))


def build_index(
    vectors: NDArray[np.float32],
    levels: NDArray[np.float32] | None = None,
    lifts: NDArray[np.float32] | None = None,
    *,
    time: int = 0,
    lists: int | None = None,
    probes: int = FEWEST_PROBES,
    storage: Storage = "float32",
    user_scale: float = 1.0,
    seed: int = 0,
) -> Index:
    """Puts items into lists. A million of them take a minute on two cores.

    Args:
        vectors: float32 `[N + 1, W]`, row 0 is padding.
        levels: float32 `[N + 1]`, added to the scores of items; None: nothing is.
        lifts: float32 `[N + 1]`, what items are lifted by for being new at `time`; None: none is.
        time: Unix seconds.
        lists: None: `usual_lists`.
        probes: see `Index`; at most the lists.
        user_scale: root mean square of the elements of user vectors: what a coordinate of an item counts
            beside its level and lift.
    """
    count = len(vectors) - 1
    lists = min(usual_lists(count) if lists is None else lists, count)
    flat = [np.zeros(count, np.float32) if given is None else given[1:] for given in (levels, lifts)]
    points = np.concatenate([vectors[1:], ((flat[0] + flat[1]) / user_scale)[:, None]], axis=1)
    places = math.ceil(count / lists * SLACK) + 1
    capacity = np.full(lists, places)
    capacity[0] -= 1  # the place of padding
    chosen = balanced_lists(points, lists, capacity, seed)
    order = np.argsort(chosen, kind="stable")
    lengths = np.bincount(chosen, minlength=lists)
    place = np.arange(count) - (np.cumsum(lengths) - lengths)[chosen[order]] + (chosen[order] == 0)
    items = np.zeros((lists, places), np.int32)
    items[chosen[order], place] = order + 1
    means, spreads = _moments(vectors[1:], chosen, lengths)
    return Index(
        items=items,
        means=means,
        spreads=spreads,
        levels=np.stack([*map(np.ravel, _moments(flat[0][:, None], chosen, lengths))], axis=1),
        lifts=np.stack([*map(np.ravel, _moments(flat[1][:, None], chosen, lengths))], axis=1),
        time=time,
        probes=min(probes, lists),
        storage=storage,
    )


def lifts_at(freshness: Freshness | None, time: int, item_times: NDArray[np.int64]) -> NDArray[np.float32]:
    """What items gain by being new at `time`, float32 `[N + 1]`; as `training.search.lift_of`."""
    if freshness is None:
        return np.zeros(len(item_times), np.float32)
    age_days = np.maximum(time - item_times, 0) / _DAY_S
    gained = freshness.weight * 0.5 ** (age_days / freshness.half_life_days)
    return np.where(item_times > 0, gained, 0.0).astype(np.float32)


def _moments(
    values: NDArray[np.float32], chosen: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of float32 `[n, W]` the means of each list, `[L, W]`, and the standard deviation in one direction,
    `[L]`; 0 for an empty list."""

    def mean(column: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.bincount(chosen, column, len(lengths)) / np.maximum(lengths, 1)

    means = np.stack([mean(column) for column in values.T], axis=1)
    left = mean(np.einsum("nw,nw->n", values, values)) - np.einsum("lw,lw->l", means, means)
    return means.astype(np.float32), np.sqrt(np.maximum(left, 0.0) / values.shape[1]).astype(np.float32)
