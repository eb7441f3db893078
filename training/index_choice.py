"""Whether an export has an index, and how many lists it must look through: until it finds what it has to.

Recall is measured on the graph that is served, with the user vectors, exclusions and times of real histories,
against the score of every item. An index that does not reach the configured recall, though it looks through
an eighth of its lists, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.dataset import Prepared
from training.errors import TrainingError
from training.index import FEWEST_PROBES, Index, build_index, lifts_at
from training.index_search import InvertedSearch
from training.model_config import IndexConfig
from training.search import Query
from training.serving import Served
from training.splits import Case
from training.trained import Trained

INDEXED_FROM = 50_000
"""Items. Below, scoring all of them takes at most twice as long, and misses none (docs/decisions/0022)."""
_USERS = 1_000
_AT_ONCE = 32
_MOST = 1 / 8
"""Of the lists: who has to look through more is better off with the exact search."""
_TIE = 1e-4
_NO_TARGET = np.array([1], np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Requests that recall is measured with."""

    cases: Sequence[Case]
    vectors: NDArray[np.float32]
    """`[n, D]`."""


def asked_of(prepared: Prepared, trained: Trained) -> Asked:
    """The next request of the first users of a data set, who had what they had."""
    cases = [
        Case(history, _NO_TARGET, int(history.times[-1]) + 1)
        for history in islice(prepared.histories(), _USERS)
    ]
    vectors = [
        trained.retrieval.vectors(cases[start : start + _AT_ONCE]).numpy()
        for start in range(0, len(cases), _AT_ONCE)
    ]
    return Asked(cases, np.concatenate(vectors))


def wants_index(config: IndexConfig, items: int) -> bool:
    """Whether a catalogue of so many items gets one."""
    return items > 1 and (config.kind == "inverted" or (config.kind == "auto" and items >= INDEXED_FROM))


def planned_index(config: IndexConfig, trained: Trained, asked: Asked, now: int) -> Index:
    """The index of an export, before it is known how many lists have to be looked through.

    Args:
        now: Unix seconds; lists are made for the lift of new items then, or when the newest one came.
    """
    facts = trained.facts
    time = min(now, int(facts.item_times.max()))
    return build_index(
        trained.items.vectors,
        trained.items.levels,
        lifts_at(facts.config.behaviour.freshness, time, facts.item_times),
        time=time,
        lists=config.lists,
        probes=config.probes or FEWEST_PROBES,
        storage=config.storage,
        user_scale=max(1e-3, float(np.sqrt(np.square(asked.vectors).mean()))),
    )


def with_recall(
    served: Served, index: Index, trained: Trained, asked: Asked, bound: float
) -> dict[str, str | int | float]:
    """Has the graph look through as many lists as it must, which decides how it is saved; what the manifest
    says of the index.

    Raises:
        TrainingError: the best candidates are not found often enough.
    """
    assert isinstance(served.search, InvertedSearch)
    best = best_scores(trained, asked, served.pool)

    def measured(probes: int) -> float:
        assert isinstance(served.search, InvertedSearch)
        served.search.probes = probes
        return recall_of(served, trained, asked, best)

    too_few, probes, most = 0, index.probes, max(int(index.lists * _MOST), index.probes)
    while (recall := measured(probes)) < bound:
        if probes == most:
            raise TrainingError(
                f"the index finds {recall:.3f} of the best {served.pool} candidates with {probes} of its "
                f"{index.lists} lists, less than index.recall, {bound}: not exported. Set index.kind = "
                '"exact", or index.recall lower'
            )
        too_few, probes = probes, min(2 * probes, most)
    # Every request pays for each list: twice as many as were too few may be more than it takes.
    while too_few and probes - too_few > max(1, probes // 8):
        middle = (too_few + probes) // 2
        if (found := measured(middle)) < bound:
            too_few = middle
        else:
            probes, recall = middle, found
    served.search.probes = probes
    return {
        "kind": "inverted",
        "lists": index.lists,
        "capacity": index.capacity,
        "probes": probes,
        "storage": index.storage,
        "recall": round(recall, 4),
        "at": served.pool,
        "bound": bound,
        "users": len(asked.cases),
    }


def best_scores(trained: Trained, asked: Asked, count: int) -> NDArray[np.float32]:
    """The scores of the best `count` items of each request, float32 `[n, count]`, in no order; -inf where no
    more may be returned."""
    found = np.empty((len(asked.cases), count), np.float32)
    everything = np.arange(1, len(trained.items.vectors))
    for start in range(0, len(asked.cases), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        scores = asked.vectors[some] @ trained.items.vectors[1:].T
        for row, case in zip(scores, asked.cases[some], strict=True):
            row[:] = _ranked(trained, case, row, everything)
        found[some] = -np.partition(-scores, count - 1, axis=1)[:, :count]
    return found


def recall_of(served: Served, trained: Trained, asked: Asked, best: NDArray[np.float32]) -> float:
    """The share of the best items that the graph finds, the mean over the requests.

    An item counts if its exact score is as good as that of the last of the best, so of items with one score
    any will do. One that must not be returned, or that comes twice, does not count.
    """
    search, shares = tf.function(served.search, reduce_retracing=True), []
    row_of = np.zeros(len(trained.items.vectors), np.int64)
    row_of[served.items] = np.arange(len(served.items))
    for start in range(0, len(asked.cases), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        cases = asked.cases[some]
        excluded = [(b, row_of[item]) for b, case in enumerate(cases) for item in case.known.taken.tolist()]
        found = search(
            Query(
                tf.constant(asked.vectors[some]),
                tf.constant([[case.time] for case in cases], tf.int64),
                tf.constant(np.array(excluded, np.int64).reshape(-1, 2)),
                tf.ones((len(cases), served.categories), tf.bool),
            )
        )
        items = np.where(found.top.numpy() > -np.inf, served.items[found.rows.numpy()], 0)
        for own, case, vector, wanted in zip(items, cases, asked.vectors[some], best[some], strict=True):
            real = wanted[wanted > -np.inf]
            if len(real):
                last = real.min() - _TIE * max(1.0, abs(float(real.min())))
                got = np.unique(own[own > 0])
                scores = _ranked(trained, case, trained.items.vectors[got] @ vector, got)
                hits = int((scores >= last).sum())
                shares.append(min(1.0, hits / len(real)))
    return float(np.mean(shares)) if shares else 1.0


def _ranked(
    trained: Trained, case: Case, products: NDArray[np.float32], items: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Scores with level and lift of some items, float32 `[n]`, -inf where one must not be returned.

    Args:
        products: float32 `[n]`, inner products of the user vector with theirs.
        items: catalogue indices from 1.
    """
    facts = trained.facts
    lifts = lifts_at(facts.config.behaviour.freshness, case.time, facts.item_times[items])
    barred = (facts.published[items] > case.time) | np.isin(items, case.known.taken)
    return np.where(barred, -np.inf, products + trained.items.levels[items] + lifts).astype(np.float32)
