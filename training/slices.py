"""The figures of kinds of users and of kinds of items: a mean can hide whom a ranker serves badly.

    history    by the number of events known of the user
    decile     by the popularity of the target among the items of the training part, 1 the least popular
    cold       targets that nobody had in the training part

A user with several targets counts in the slice of each of them, judged there by these targets alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from training.judged import Judged
from training.metrics import hit_matrix, ranking_metrics

_LENGTHS = ((0, 20), (21, 50), (51, 100), (101, None))
COLD = "cold target"


@dataclass(frozen=True, slots=True)
class Slice:
    """The figures of one slice."""

    name: str
    users: int
    metrics: dict[str, float]
    """`hr@10`, `ndcg@10`, …: means over the users of the slice."""


def slices(rankers: Sequence[Judged]) -> list[Slice]:
    """Every slice that has a user, in a fixed order.

    Args:
        rankers: at least one; several are the seeds of one model, judged by the same users, and the figures
            are means over them.
    """
    kinds = [list(_slices(judged)) for judged in rankers]
    return [
        Slice(
            name=same[0].name,
            users=same[0].users,
            metrics={name: fmean(one.metrics[name] for one in same) for name in same[0].metrics},
        )
        for same in zip(*kinds, strict=True)
    ]


def _slices(judged: Judged) -> Iterator[Slice]:
    for least, most in _LENGTHS:
        chosen = judged.lengths >= least
        name = f"history > {least - 1}"
        if most is not None:
            chosen &= judged.lengths <= most
            name = f"history {least}–{most}" if least else f"history ≤ {most}"
        if chosen.any():
            means = {metric: float(values[chosen].mean()) for metric, values in judged.values.items()}
            yield Slice(name, int(chosen.sum()), means)
    for decile in (*range(1, 11), 0):
        if (one := _by_target(judged, judged.target_deciles == decile)) is not None:
            yield Slice(f"target decile {decile}" if decile else COLD, *one)


def _by_target(judged: Judged, chosen: NDArray[np.bool_]) -> tuple[int, dict[str, float]] | None:
    """Users with a chosen target, and their figures by these; `chosen` is bool `[M]`."""
    owners = np.repeat(np.arange(len(judged.users)), judged.target_counts)
    counts = np.bincount(owners[chosen], minlength=len(judged.users))
    counts = counts[counts > 0]
    if not len(counts):
        return None
    cutoffs = judged.cutoffs
    hits = hit_matrix(judged.target_ranks[chosen], counts, max(cutoffs))
    values = ranking_metrics(hits, counts, cutoffs)
    return len(counts), {name: float(value.mean()) for name, value in values.items()}
