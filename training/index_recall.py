"""How many of the best candidates an index finds, of what real users would ask for next.

Measured on the graph that is served, with the vectors, exclusions and times of real histories, against the
score of every item: once without a filter, and once with that of the category of a user's last item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.dataset import History, Prepared
from training.index import lifts_at
from training.search import Query
from training.serving import Served
from training.splits import Case
from training.trained import Trained

_USERS = 1_000
_AT_ONCE = 32
_TIE = 1e-4
_NO_TARGET = np.array([1], np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Requests that recall is measured with."""

    cases: Sequence[Case]
    vectors: NDArray[np.float32]
    """`[n, D]`."""
    filters: NDArray[np.int64]
    """`[n]`: the category that a request is limited to when it is asked once more, by its place in the
    filter; -1: it is not."""
    members: dict[int, NDArray[np.int64]]
    """The catalogue indices, from 1, of the items of each category in `filters`."""


class Recall(NamedTuple):
    """Shares of the best items, the means over the requests; 1 where there is none."""

    plain: float
    filtered: float


class Best(NamedTuple):
    """The best scores of each request, float32 `[n, count]`, in no order; -inf: no more may be returned."""

    plain: NDArray[np.float32]
    filtered: NDArray[np.float32]


def asked_of(
    prepared: Prepared, trained: Trained, items: Sequence[CatalogItem], categories: Sequence[str], time: int
) -> Asked:
    """The next request of users from all over a data set, who had what they had.

    Args:
        items: the catalogue.
        categories: the axis of a filter.
        time: Unix seconds before which nobody asks: nothing is served before the index is made.
    """
    cases = [
        Case(history, _NO_TARGET, max(int(history.times[-1]) + 1, time))
        for history in _spread(prepared.histories(), _USERS)
    ]
    vectors = [
        trained.retrieval.vectors(cases[start : start + _AT_ONCE]).numpy()
        for start in range(0, len(cases), _AT_ONCE)
    ]
    filters, members = filters_of(cases, items, categories)
    return Asked(cases, np.concatenate(vectors), filters, members)


def filters_of(
    cases: Sequence[Case], items: Sequence[CatalogItem], categories: Sequence[str]
) -> tuple[NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """`Asked.filters` and `Asked.members`: the first category of each user's last item; no filter if it has
    none, or if they had nothing."""
    place_of = {category: place for place, category in enumerate(categories)}
    filters = np.full(len(cases), -1, np.int64)
    for row, case in enumerate(cases):
        own = items[case.known.items[-1] - 1].categories if len(case.known) else ()
        if own:
            filters[row] = place_of[own[0]]
    held: dict[int, list[int]] = {place: [] for place in np.unique(filters[filters >= 0]).tolist()}
    for index, item in enumerate(items, start=1):
        for category in item.categories:
            if (place := place_of[category]) in held:
                held[place].append(index)
    return filters, {place: np.array(some, np.int64) for place, some in held.items()}


def best_scores(trained: Trained, asked: Asked, count: int) -> Best:
    """What recall is measured against, of every item."""
    best = Best(*np.full((2, len(asked.cases), count), -np.inf, np.float32))
    everything = np.arange(1, len(trained.items.vectors))
    for start in range(0, len(asked.cases), _AT_ONCE):
        products = asked.vectors[start : start + _AT_ONCE] @ trained.items.vectors[1:].T
        for at, row in enumerate(products, start=start):
            scores = _ranked(trained, asked.cases[at], row, everything)
            _keep_best(best.plain[at], scores)
            if asked.filters[at] >= 0:
                _keep_best(best.filtered[at], scores[asked.members[int(asked.filters[at])] - 1])
    return best


def recall_of(served: Served, trained: Trained, asked: Asked, best: Best) -> Recall:
    """The shares of the best items that the graph finds.

    An item counts if its exact score is as good as that of the last of the best, so of items with one score
    any will do. One that must not be returned, or that comes twice, does not count.
    """
    search = tf.function(served.search, reduce_retracing=True, autograph=False)
    row_of = np.zeros(len(trained.items.vectors), np.int64)
    row_of[served.items] = np.arange(len(served.items))
    some, everyone = np.flatnonzero(asked.filters >= 0), np.arange(len(asked.cases))

    def shares(requests: NDArray[np.int64], wanted: NDArray[np.float32], filtered: bool) -> Iterable[float]:
        for start in range(0, len(requests), _AT_ONCE):
            at = requests[start : start + _AT_ONCE]
            cases = [asked.cases[i] for i in at]
            excluded = [
                (b, row_of[item]) for b, case in enumerate(cases) for item in case.known.taken.tolist()
            ]
            allowed = np.ones((len(at), served.categories), np.bool_)
            if filtered:
                allowed = np.arange(served.categories) == asked.filters[at, None]
            found = search(
                Query(
                    tf.constant(asked.vectors[at]),
                    tf.constant([[case.time] for case in cases], tf.int64),
                    tf.constant(np.array(excluded, np.int64).reshape(-1, 2)),
                    tf.constant(allowed),
                )
            )
            items = np.where(found.top.numpy() > -np.inf, served.items[found.rows.numpy()], 0)
            for own, i in zip(items, at.tolist(), strict=True):
                real = wanted[i][wanted[i] > -np.inf]
                if not len(real):
                    continue
                last = real.min() - _TIE * max(1.0, abs(float(real.min())))
                got = np.unique(own[own > 0])
                if filtered:
                    got = np.intersect1d(got, asked.members[int(asked.filters[i])])
                products = trained.items.vectors[got] @ asked.vectors[i]
                hits = int((_ranked(trained, asked.cases[i], products, got) >= last).sum())
                yield min(1.0, hits / len(real))

    return Recall(_mean(shares(everyone, best.plain, False)), _mean(shares(some, best.filtered, True)))


def _spread(histories: Iterable[History], count: int) -> list[History]:
    """`count` of them from all over, or all, if there are no more; in one pass that never holds twice as
    many."""
    kept: list[History] = []
    distance = 1
    for number, history in enumerate(histories):
        if number % distance:
            continue
        if len(kept) < 2 * count - 1:
            kept.append(history)
        else:  # every other one from here on, of which this is none
            kept, distance = kept[::2], 2 * distance
    return [kept[i] for i in np.linspace(0, len(kept) - 1, min(count, len(kept))).astype(int).tolist()]


def _keep_best(into: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    count = min(len(into), len(scores))
    if count:
        into[:count] = -np.partition(-scores, count - 1)[:count]


def _mean(shares: Iterable[float]) -> float:
    every = list(shares)
    return float(np.mean(every)) if every else 1.0


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
