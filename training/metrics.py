"""Ranking metrics of one top-k list per user, all with binary relevance.

Definitions follow Herlocker et al., "Evaluating Collaborative Filtering Recommender Systems", TOIS 2004, and
Järvelin & Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 2002 (NDCG). With one target
per user, recall@k equals HR@k and precision@k is HR@k / k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def target_ranks(ranked: NDArray[np.integer], targets: Sequence[NDArray[np.integer]]) -> NDArray[np.int32]:
    """The slot of each target in its user's list, from 1; 0 if the list lacks it.

    Args:
        ranked: int `[B, k]`, items, best first, none twice in a list.
        targets: B arrays of items.

    Returns:
        int32 `[M]`, the targets of the first user first.
    """
    ranks = [np.zeros(0, np.int32)]
    for row, wanted in zip(ranked, targets, strict=True):
        slots = row == wanted[:, None]  # (n, k)
        ranks.append(np.where(slots.any(axis=1), slots.argmax(axis=1) + 1, 0).astype(np.int32))
    return np.concatenate(ranks)


def hit_matrix(
    ranks: NDArray[np.integer], target_counts: NDArray[np.integer], slots: int
) -> NDArray[np.bool_]:
    """Which of the best `slots` slots of each list hold a target of its user: bool `[B, slots]`.

    Args:
        ranks: int `[M]`, as `target_ranks` gives them; those beyond `slots` count as absent.
        target_counts: int `[B]`, targets of each user; their sum is M.
        slots: of each list.
    """
    hits = np.zeros((len(target_counts), slots), np.bool_)
    users = np.repeat(np.arange(len(target_counts)), target_counts)
    found = (ranks > 0) & (ranks <= slots)
    hits[users[found], ranks[found] - 1] = True
    return hits


def ranking_metrics(
    hits: NDArray[np.bool_], target_counts: NDArray[np.integer], cutoffs: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Every metric at every cut-off for each user: `hr@10` → float64 `[B]`, each within 0 and 1.

    Args:
        hits: bool `[B, k]`, best slot first, k ≥ the largest cut-off.
        target_counts: int `[B]`, targets of each user, ≥ 1.
        cutoffs: the k of each metric.

    Raises:
        ValueError: a cut-off is larger than the lists are long.
    """
    if max(cutoffs) > hits.shape[1]:
        raise ValueError(f"cannot judge {max(cutoffs)} slots of lists that hold {hits.shape[1]}")
    discounts = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discounts)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1), hits.shape[1])
    values: dict[str, NDArray[np.float64]] = {}
    for k in cutoffs:
        found = hits[:, :k].sum(axis=1)
        gain = hits[:, :k] @ discounts[:k]
        values[f"hr@{k}"] = (found > 0).astype(np.float64)
        values[f"precision@{k}"] = found / k
        values[f"recall@{k}"] = found / target_counts
        values[f"ndcg@{k}"] = gain / ideal[np.minimum(target_counts, k) - 1]
        values[f"mrr@{k}"] = np.where(first < k, 1.0 / (first + 1.0), 0.0)
    return values
