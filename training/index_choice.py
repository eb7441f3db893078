"""Whether an export has an index, and how many lists it must look through: until it finds what it has to.

An index that does not reach the configured recall (`training.index_recall`), though it looks through an
eighth of its lists, is refused.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

import numpy as np

from training.errors import TrainingError
from training.index import FEWEST_PROBES, Index, build_index, lifts_at
from training.index_recall import Asked, best_scores, recall_of
from training.index_search import InvertedSearch
from training.model_config import IndexConfig
from training.serving import Served
from training.trained import Trained

INDEXED_FROM = 100_000
"""Items. Below, scoring all of them costs about as much as the lists do for a user who had a thousand, and
misses none (docs/decisions/0022)."""
_MOST = 1 / 8
"""Of the lists: who has to look through more is better off with the exact search."""


def wants_index(config: IndexConfig, items: int) -> bool:
    """Whether a catalogue of so many items gets one."""
    return items > 1 and (config.kind == "inverted" or (config.kind == "auto" and items >= INDEXED_FROM))


def index_time(trained: Trained, now: int) -> int:
    """What an index is made for, Unix seconds: the lift of new items `now`, or when the newest one came."""
    return min(now, int(trained.facts.item_times.max()))


def planned_index(config: IndexConfig, trained: Trained, asked: Asked, time: int) -> Index:
    """The index of an export, before it is known how many lists have to be looked through; `time` as
    `index_time`."""
    facts = trained.facts
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
    served: Served, index: Index, trained: Trained, asked: Asked, config: IndexConfig
) -> dict[str, str | int | float]:
    """Has the graph look through as many lists as it must, which decides how it is saved; what the manifest
    says of the index. If its kind is `exact`, the index found too few, and nobody had insisted on it.

    Raises:
        TrainingError: the best candidates are not found often enough, and the index is asked for by name.
    """
    assert isinstance(served.search, InvertedSearch)
    best = best_scores(trained, asked, served.pool)

    def measured(probes: int) -> tuple[float, float, float]:
        """The lower of both recalls, and both."""
        assert isinstance(served.search, InvertedSearch)
        served.search.probes = probes
        recall = recall_of(served, trained, asked, best)
        return min(recall), *recall

    bound = config.recall
    too_few, probes, most = 0, index.probes, max(int(index.lists * _MOST), index.probes)
    while (recall := measured(probes))[0] < bound:
        if probes < most:
            too_few, probes = probes, min(2 * probes, most)
            continue
        if config.kind == "auto":
            return {"kind": "exact", "refused_recall": _rounded_down(recall[0]), "bound": bound}
        where = "" if recall[0] == recall[1] else " of a category"
        raise TrainingError(
            f"the index finds {_rounded_down(recall[0])} of the best {served.pool} candidates{where} with "
            f"{probes} of its {index.lists} lists, less than index.recall, {bound}: not exported. Set "
            'index.kind = "exact", or index.recall lower'
        )
    # Every request pays for each list: twice as many as were too few may be more than it takes.
    while too_few and probes - too_few > max(1, probes // 8):
        middle = (too_few + probes) // 2
        if (found := measured(middle))[0] < bound:
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
        "recall": _rounded_down(recall[1]),
        "recall_filtered": _rounded_down(recall[2]),
        "at": served.pool,
        "bound": bound,
        "users": len(asked.cases),
    }


def _rounded_down(recall: float) -> float:
    """To four digits; never up, or what is just below a bound would be said to reach it."""
    return float(Decimal(str(recall)).quantize(Decimal("0.0001"), ROUND_DOWN))
