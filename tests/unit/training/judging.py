"""Judged users, made from the ranks of their targets, for the tests of what compares them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.judged import Judged
from training.metrics import hit_matrix, ranking_metrics


def judged(
    ranks: Sequence[Sequence[int]],
    *,
    users: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    deciles: Sequence[Sequence[int]] | None = None,
    cutoffs: Sequence[int] = (5, 10),
    ranker: str = "transformer",
    data: str = "f" * 64,
    protocol: str = "LeaveOneOut() test",
    asked: Sequence[int] | None = None,
) -> Judged:
    """One row per user, from the ranks of their targets (0: not found)."""
    counts = np.array([len(some) for some in ranks], np.int32)
    flat = np.concatenate([np.array(some, np.int32) for some in ranks])
    rows = len(ranks)
    return Judged(
        ranker=ranker,
        data=data,
        protocol=protocol,
        users=np.array(users if users is not None else range(1, rows + 1), np.int64),
        lengths=np.array(lengths if lengths is not None else [5] * rows, np.int32),
        top=np.tile(np.arange(1, 11, dtype=np.int32), (rows, 1)),
        target_counts=counts,
        target_ranks=flat,
        target_deciles=np.concatenate(deciles).astype(np.int8) if deciles else np.ones_like(flat, np.int8),
        values=ranking_metrics(hit_matrix(flat, counts, max(cutoffs)), counts, cutoffs),
        asked=None if asked is None else np.array(asked, np.int64),
    )
