"""What the diversity of a page costs and gives, re-ordered as the served graph does it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.diversity import diversified
from training.exposure import Exposure
from training.metrics import hit_matrix, ranking_metrics, target_ranks
from training.plots import DiversityPoint
from training.rank_examples import candidates_of
from training.rank_training import RankedRetrieval
from training.ranker import NO_CANDIDATE
from training.splits import Case
from training.trained import Trained

SETTINGS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_SLOTS = 10
_CASES_AT_ONCE = 256
_NO_CANDIDATE = np.float32(-1e9)


def diversity_curve(
    trained: Trained, cases: Sequence[Case], pool: int, categories: NDArray[np.float32]
) -> list[DiversityPoint]:
    """One point for each of `SETTINGS`, over the first ten slots.

    Args:
        pool: candidates that are re-ordered, as the served graph does.
        categories: float32 `[N, C]`, what the distance of items is measured by
            (`training.exposure.category_vectors`).
    """
    item_count = len(categories)
    slots = min(_SLOTS, item_count)
    reorder = tf.function(lambda top, own, wanted: diversified(top, own, wanted, slots), autograph=False)
    exposures = {setting: Exposure(item_count, categories) for setting in SETTINGS}
    gains: dict[float, list[NDArray[np.float64]]] = {setting: [] for setting in SETTINGS}
    retrieval = trained.retrieval
    ranked = RankedRetrieval(retrieval, trained.ranker, trained.facts) if trained.ranker else None
    for start in range(0, len(cases), _CASES_AT_ONCE):
        some = cases[start : start + _CASES_AT_ONCE]
        found, top = _pooled(retrieval.scores(some), some, trained.facts.published[1:], pool, ranked)
        targets = [case.targets for case in some]
        counts = np.array([len(each) for each in targets], np.int32)
        own = tf.constant(trained.items.vectors[found])
        for setting in SETTINGS:
            wanted = tf.fill((len(some), 1), tf.constant(setting, tf.float32))
            order = reorder(tf.constant(top), own, wanted).numpy()
            page = np.take_along_axis(found, order, axis=1)
            exposures[setting].add(page - 1)
            real = np.isfinite(np.take_along_axis(top, order, axis=1))
            hits = hit_matrix(target_ranks(np.where(real, page, 0), targets), counts, slots)
            gains[setting].append(ranking_metrics(hits, counts, (slots,))[f"ndcg@{slots}"])
    points = []
    for setting, exposure in exposures.items():
        figures = exposure.figures(trained.facts.item_users, users=1)
        points.append(
            DiversityPoint(
                diversity=setting,
                ndcg=float(np.concatenate(gains[setting]).mean()),
                intra_list_distance=figures.get("intra_list_distance"),
                coverage=figures["coverage"],
            )
        )
    return points


def _pooled(
    scores: NDArray[np.float32],
    cases: Sequence[Case],
    published: NDArray[np.int64],
    pool: int,
    ranked: RankedRetrieval | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Candidates int32 `[B, C]` from 1 and their scores float32 `[B, C]`, in order of these; -inf where the
    catalogue has no more items that are new to the user."""
    found, real = candidates_of(scores, cases, published, min(pool, scores.shape[1]))
    old = ~real
    top = np.where(old, NO_CANDIDATE, np.take_along_axis(scores, found - 1, axis=1)).astype(np.float32)
    if ranked is not None:
        top = ranked.logits(cases, found, top)
    top = np.where(old, -np.inf, top).astype(np.float32)
    order = np.argsort(-top, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(top, order, axis=1)
