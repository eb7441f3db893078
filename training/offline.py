"""The page of a request, computed from the trained model request by request, with none of the served graph.

Slow and plain: what Triton answers is checked against it, and what changes a page (diversity, a history with
one event less) is measured with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.catalog import CatalogItem
from training.dataset import History
from training.rank_training import RankedRetrieval
from training.splits import Case
from training.trained import Trained

_DAY_S = 86_400.0
_NOBODY = np.array([1], np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a page is asked for."""

    history: History
    """Newest events last; catalogue indices from 1, unknown items left out."""
    time: int
    """Unix seconds."""
    surface: int = 0
    """`features.schema.surface_key`."""
    excluded: frozenset[int] = frozenset()
    """Catalogue indices from 1."""
    categories: frozenset[str] | None = None
    """None: no filter."""
    diversity: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A page; fewer than `page_size` items if no more are allowed."""

    items: NDArray[np.int32]
    """`[n]`, catalogue indices from 1, best first."""
    scores: NDArray[np.float32]
    """`[n]`."""


class Offline:
    """Answers requests."""

    def __init__(self, trained: Trained, items: Sequence[CatalogItem], page_size: int) -> None:
        self._trained, self._items = trained, items
        self._page_size = min(page_size, len(items))
        config = trained.facts.config
        self._pool = min(config.ranker.candidates if trained.ranker else page_size, len(items))
        self._retrieval = trained.retrieval
        self._ranked = (
            RankedRetrieval(self._retrieval, trained.ranker, trained.facts) if trained.ranker else None
        )
        lengths = np.linalg.norm(trained.items.vectors, axis=1, keepdims=True)
        self._unit = trained.items.vectors / np.maximum(lengths, 1e-6)

    def page(self, request: Request, among: NDArray[np.int32] | None = None) -> Answer:
        """The page of a request.

        Args:
            among: catalogue indices from 1 of the only candidates, where an index chose them; None: all.
        """
        case = Case(request.history, _NOBODY, request.time, request.surface)
        base = self._retrieval.scores([case])[0]
        lift = self._lift(request.time)
        allowed = self._allowed(request)
        if among is not None:
            allowed &= np.isin(np.arange(1, len(allowed) + 1), among)
        scores = np.where(allowed, base + lift, -np.inf)
        found = np.argsort(-scores, kind="stable")[: self._pool]
        found = found[np.isfinite(scores[found])]
        if not len(found):
            return Answer(np.empty(0, np.int32), np.empty(0, np.float32))
        best = scores[found]
        if self._ranked is not None:
            candidates = (found[None] + 1).astype(np.int32)
            best = self._ranked.logits([case], candidates, base[found][None])[0] + lift[found]
            order = np.argsort(-best, kind="stable")
            found, best = found[order], best[order]
        if request.diversity > 0:
            order = np.array(self._diversified(best, self._unit[found + 1], request.diversity))
            found, best = found[order], best[order]
        found, best = found[: self._page_size], best[: self._page_size]
        shown = 1.0 / (1.0 + np.exp(-best)) if self._ranked is not None else best
        return Answer((found + 1).astype(np.int32), shown.astype(np.float32))

    def score_of(self, request: Request, item: int) -> float:
        """The score of one item, catalogue index from 1, by the retrieval alone."""
        case = Case(request.history, _NOBODY, request.time, request.surface)
        return float(self._retrieval.scores([case])[0][item - 1])

    def _allowed(self, request: Request) -> NDArray[np.bool_]:
        wanted = request.categories
        published: NDArray[np.bool_] = self._trained.facts.published[1:] <= request.time
        passes = [
            i not in request.excluded and (wanted is None or not wanted.isdisjoint(item.categories))
            for i, item in enumerate(self._items, start=1)
        ]
        allowed: NDArray[np.bool_] = published & np.array(passes)
        return allowed

    def _lift(self, time: int) -> NDArray[np.float32]:
        freshness = self._trained.facts.config.behaviour.freshness
        times = self._trained.facts.item_times[1:]
        if freshness is None:
            return np.zeros(len(times), np.float32)
        age_days = np.maximum(time - times, 0) / _DAY_S
        gained = freshness.weight * 0.5 ** (age_days / freshness.half_life_days)
        return np.where(times > 0, gained, 0.0).astype(np.float32)

    def _diversified(
        self, scores: NDArray[np.float32], unit: NDArray[np.float32], diversity: float
    ) -> list[int]:
        """Maximal marginal relevance, as in `training.diversity`, slot by slot."""
        spread = scores.max() - scores.min()
        relevance = (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)
        nearest, left, order = np.zeros(len(scores), np.float32), list(range(len(scores))), []
        for _ in range(min(self._page_size, len(scores))):
            worth = (1 - np.float32(diversity)) * relevance - np.float32(diversity) * nearest
            best = max(left, key=lambda i: (worth[i], -i))
            order.append(best)
            left.remove(best)
            nearest = np.maximum(nearest, unit @ unit[best])
        return order
