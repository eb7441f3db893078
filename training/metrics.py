"""Ranking metrics of one top-k list per user, all with binary relevance.

Definitions follow Herlocker et al., "Evaluating Collaborative Filtering Recommender Systems", TOIS 2004, and
Järvelin & Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 2002 (NDCG). With one target
per user, recall@k equals HR@k and precision@k is HR@k / k.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def hit_matrix(ranked: NDArray[np.int64], targets: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """Which slots of the ranked items, int `[B, k]`, hold a target of their user: bool `[B, k]`."""
    return np.stack([np.isin(row, wanted) for row, wanted in zip(ranked, targets, strict=True)])


def ranking_metrics(
    hits: NDArray[np.bool_], target_counts: NDArray[np.int64], cutoffs: Sequence[int]
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


def coverage(shown: NDArray[np.int64], item_count: int) -> float:
    """Share of the catalogue that some list shows; `shown` is how often each item was, int `[item_count]`."""
    return float(np.count_nonzero(shown)) / item_count


def novelty(shown: NDArray[np.int64], user_counts: NDArray[np.int64], users: int) -> float:
    """Mean self-information of the items shown, in bits: −log2 of the share of the training users who had the
    item.

    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010. An item
    nobody had counts as had by one user, so that the value stays finite.

    Args:
        shown: int `[N]`, how often each item was shown.
        user_counts: int `[N]`, training users with each item.
        users: training users.
    """
    information = -np.log2(np.maximum(user_counts, 1) / users)
    return float(np.average(information, weights=shown)) if shown.any() else 0.0
