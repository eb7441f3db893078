"""Judging a ranker: every item of the catalogue is ranked for each user, with what the user had before
masked.

The transformer and the baselines go through the same code, so that their figures compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.dataset import History, Prepared
from training.errors import TrainingError
from training.metrics import coverage, hit_matrix, novelty, ranking_metrics
from training.splits import Case, Split, Stage

_SCORES_PER_BATCH = 2**22
"""Users × items scored at once (float32: 16 MB)."""


class Ranker(Protocol):
    """Anything that scores the whole catalogue for a user."""

    @property
    def name(self) -> str:
        """How the report calls it."""

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """float32 `[B, N]`, higher is better, all finite; column i is item i of the catalogue."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one ranker under one protocol: means over the users judged."""

    ranker: str
    users: int
    metrics: dict[str, float]
    """`hr@10`, `ndcg@10`, …, `coverage@10`, `novelty@10`."""


def evaluate(
    ranker: Ranker,
    prepared: Prepared,
    split: Split,
    stage: Stage,
    *,
    cutoffs: Sequence[int],
    item_users: NDArray[np.int64],
    users: int,
) -> Evaluation:
    """Ranks for every user who can be judged.

    Args:
        cutoffs: the k of each metric, none above the catalogue's size.
        item_users: int `[N]`, training users with each item; for novelty.
        users: training users; for novelty.

    Raises:
        TrainingError: no user can be judged under this protocol.
    """
    longest, item_count = max(cutoffs), len(prepared.items)
    sums: dict[str, float] = {}
    judged = 0
    shown = {k: np.zeros(item_count, np.int64) for k in cutoffs}
    for cases in _batched(prepared, split, stage):
        ranked = rank(ranker, [case.known for case in cases], longest)
        hits = hit_matrix(ranked + 1, [case.targets for case in cases])
        counts = np.array([len(case.targets) for case in cases])
        for name, values in ranking_metrics(hits, counts, cutoffs).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
        for k in cutoffs:
            shown[k] += np.bincount(ranked[:, :k].ravel(), minlength=item_count)
        judged += len(cases)
    if not judged:
        raise TrainingError(f"{split.name}: no user has enough events to be judged by")
    metrics = {name: total / judged for name, total in sums.items()}
    for k in cutoffs:
        metrics[f"coverage@{k}"] = coverage(shown[k], item_count)
        metrics[f"novelty@{k}"] = novelty(shown[k], item_users, users)
    return Evaluation(ranker.name, judged, metrics)


def rank(ranker: Ranker, histories: Sequence[History], k: int) -> NDArray[np.int64]:
    """The best k catalogue positions (from 0) of each history, int64 `[B, k]`; ties go to the lower position.

    Items of the history are masked. Where fewer than k others exist, masked ones fill the list; they are no
    targets.
    """
    scores = np.array(ranker.scores(histories), np.float32)
    for row, history in zip(scores, histories, strict=True):
        row[history.items - 1] = -np.inf
    return np.stack([_best(row, k) for row in scores])


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    # Only what reaches the k-th best score is sorted: exact, and quick for a large catalogue.
    least = np.partition(scores, -k)[-k]
    able = np.flatnonzero(scores >= least)
    return able[np.argsort(-scores[able], kind="stable")[:k]]


def _batched(prepared: Prepared, split: Split, stage: Stage) -> Iterator[list[Case]]:
    cases = (case for history in prepared.histories() if (case := split.case(history, stage)) is not None)
    while batch := list(islice(cases, max(1, _SCORES_PER_BATCH // len(prepared.items)))):
        yield batch
