"""Judging a ranker: every item of the catalogue is ranked for each user, but for what the user had before
and what is published later.

The transformer and the baselines go through the same code, so that their figures compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.dataset import Prepared
from training.errors import TrainingError
from training.exposure import Exposure, popularity_deciles
from training.judged import Judged, asked_hash, joined, user_hash
from training.metrics import hit_matrix, ranking_metrics, target_ranks
from training.splits import Case, Split, Stage

_SCORES_PER_BATCH = 2**22
"""Users × items scored at once (float32: 16 MB)."""
_TOP = 10
"""Items of each list that are kept."""


class Ranker(Protocol):
    """Anything that scores the whole catalogue for a request."""

    @property
    def name(self) -> str:
        """How the report calls it."""

    def scores(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """float32 `[B, N]`, higher is better, all finite; column i is item i of the catalogue.

        What a case says of its targets is not to be used.
        """


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one ranker under one protocol."""

    ranker: str
    users: int
    metrics: dict[str, float]
    """Means over the users judged, `hr@10`, `ndcg@10`, …, and figures of all their lists, `coverage@10`,
    `novelty@10`, `popularity@10`, `gini@10`, `intra_list_distance@10` (`training.exposure`)."""


def evaluate(
    ranker: Ranker,
    prepared: Prepared,
    split: Split,
    stage: Stage,
    *,
    cutoffs: Sequence[int],
    item_users: NDArray[np.int64],
    users: int,
    vectors: NDArray[np.float32] | None = None,
    type_weights: Sequence[float] | None = None,
    key: bytes = b"",
) -> tuple[Evaluation, Judged]:
    """Ranks for every user who can be judged: the figures of all together, and those of each.

    Args:
        cutoffs: the k of each metric, none above the catalogue's size.
        item_users: int `[N]`, training users with each item; for novelty and popularity.
        users: training users; for novelty.
        vectors: float32 `[N, D]`, for the distance of the items on a page; None leaves that figure out.
        type_weights: by number of `EventType`: what a user counts in the means of `hr@10` and the like, by
            the type of their target; None: all the same.
        key: of the hashes that stand in the second answer for a user, and for what they are judged by.

    Raises:
        TrainingError: no user can be judged under this protocol.
    """
    item_count = len(prepared.items)
    slots = max(*cutoffs, min(_TOP, item_count))
    deciles = popularity_deciles(item_users)
    exposures = {k: Exposure(item_count, vectors) for k in cutoffs}
    parts = []
    weights: list[float] = []
    for cases in _batched(prepared, split, stage):
        ranked = rank(ranker, cases, slots, prepared.published)
        targets = [case.targets for case in cases]
        counts = np.array([len(some) for some in targets], np.int32)
        # What only fills a list up is nobody's hit.
        asked = np.array([[case.time] for case in cases])
        ranks = target_ranks(np.where(prepared.published[ranked] > asked, 0, ranked + 1), targets)
        parts.append(
            Judged(
                ranker=ranker.name,
                data=prepared.fingerprint,
                protocol=f"{split!r} {stage}",
                users=np.array([user_hash(case.known.user_id, key) for case in cases], np.int64),
                asked=np.array(
                    [asked_hash(case.known.user_id, case.targets, len(case.known), key) for case in cases],
                    np.int64,
                ),
                lengths=np.array([len(case.known) for case in cases], np.int32),
                top=(ranked[:, :_TOP] + 1).astype(np.int32),
                target_counts=counts,
                target_ranks=np.where(ranks <= max(cutoffs), ranks, 0).astype(np.int32),
                target_deciles=deciles[np.concatenate(targets) - 1],
                values=ranking_metrics(hit_matrix(ranks, counts, slots), counts, cutoffs),
            )
        )
        weights += [type_weights[case.type] if type_weights else 1.0 for case in cases]
        for k, exposure in exposures.items():
            exposure.add(ranked[:, :k])
    if not parts:
        raise TrainingError(f"{split.name}: no user has enough events to be judged by")
    judged = joined(parts)
    metrics = {name: float(np.average(values, weights=weights)) for name, values in judged.values.items()}
    for k, exposure in exposures.items():
        metrics |= {f"{name}@{k}": value for name, value in exposure.figures(item_users, users).items()}
    return Evaluation(ranker.name, len(judged.users), metrics), judged


def rank(ranker: Ranker, cases: Sequence[Case], k: int, published: NDArray[np.int64]) -> NDArray[np.int64]:
    """The best k catalogue positions (from 0) of each case, int64 `[B, k]`; ties go to the lower position.

    What is `masked` comes last: it fills the list where fewer than k others exist.
    """
    return np.stack([_best(row, k) for row in masked(ranker.scores(cases), cases, published)])


def masked(
    scores: NDArray[np.float32], cases: Sequence[Case], published: NDArray[np.int64]
) -> NDArray[np.float32]:
    """`scores`, float32 `[B, N]`, with -inf for what is not recommended in a case: what the user has taken,
    and what is published later than the case is asked.

    Args:
        published: int64 `[N]`, Unix seconds, 0: it always was there.
    """
    scores = np.array(scores, np.float32)
    for row, case in zip(scores, cases, strict=True):
        row[case.known.taken - 1] = -np.inf
        row[published > case.time] = -np.inf
    return scores


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    # Only what reaches the k-th best score is sorted: exact, and quick for a large catalogue.
    least = np.partition(scores, -k)[-k]
    able = np.flatnonzero(scores >= least)
    return able[np.argsort(-scores[able], kind="stable")[:k]]


def _batched(prepared: Prepared, split: Split, stage: Stage) -> Iterator[list[Case]]:
    cases = (case for history in prepared.histories() if (case := split.case(history, stage)) is not None)
    while batch := list(islice(cases, max(1, _SCORES_PER_BATCH // len(prepared.items)))):
        yield batch
