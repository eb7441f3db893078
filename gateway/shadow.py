"""Shadow calls: the candidate answers a sample of the stable version's requests too, and nobody sees it.

A sample leaves after its live answers have, and its answers are compared with those. It must cost live calls
as little as can be: one shadow call of few rows is in flight at a time, and while live calls queue there is
none. What there is no room for is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelUnavailable
from gateway.figures import Figures
from gateway.model_inputs import Row, knows_any, model_inputs
from gateway.routing import Router
from gateway.scorer import Scorer, Scores
from gateway.versions import ServingVersion

_MOST_ROWS = 8
_TOP = 10

log = logging.getLogger("riptide.gateway.shadow")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A request, as the candidate gets it, and the live answer."""

    row: Row
    keys: NDArray[np.int64]
    """int64 `[K]`."""
    scores: NDArray[np.float32]
    """float32 `[K]`."""


class Shadow:
    """The shadow calls of one worker."""

    def __init__(self, router: Router, scorer: Scorer, figures: Figures, *, timeout_s: float) -> None:
        """`timeout_s`: the most that one call may take."""
        self._router = router
        self._scorer = scorer
        self._figures = figures
        self._timeout_s = timeout_s
        self._call: asyncio.Task[None] | None = None

    def offer(self, live: Sequence[int], rows: Sequence[Row], scores: Scores, *, crowded: bool) -> None:
        """Takes a sample of requests that have been answered, and begins to have it answered unseen.

        Args:
            live: places in the batch of the requests to choose from.
            rows: the batch.
            scores: the stable version's answer to it.
            crowded: a full batch of live calls waits already, so that there is no room.
        """
        if self._router.shadowed is None:
            return
        candidate, percent = self._router.shadowed
        sample = [place for place in live if random() * 100 < percent]
        room = 0 if crowded or self._call is not None else _MOST_ROWS
        if len(sample) > room:
            self._figures.shadow_dropped(candidate.version, len(sample) - room)
            del sample[room:]
        pairs = [
            # No cached answer is of the candidate: it encodes each.
            _Pair(replace(rows[place], answer=None), scores.item_keys[place], scores.scores[place])
            for place in sample
            if knows_any(candidate.catalog, rows[place].record)
        ]
        if cold := len(sample) - len(pairs):
            self._figures.shadow_cold(candidate.version, cold)
        if pairs:
            self._call = asyncio.get_running_loop().create_task(self._score(candidate, pairs))
            self._call.add_done_callback(self._ended)

    async def close(self) -> None:
        """Gives up the call in flight: nobody waits for it."""
        if self._call is not None:
            self._call.cancel()
            await asyncio.wait([self._call])

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._call = None

    async def _score(self, candidate: ServingVersion, pairs: Sequence[_Pair]) -> None:
        number = candidate.version
        try:
            scores = await self._scorer.score(
                candidate,
                model_inputs(candidate, [pair.row for pair in pairs]),
                reasons=False,
                vectors=False,
                timeout_s=self._timeout_s,
            )
            compared = [
                _compare(pair, keys, own)
                for pair, keys, own in zip(pairs, scores.item_keys, scores.scores, strict=True)
            ]
        except Exception as error:
            if not isinstance(error, ModelUnavailable):
                log.exception("a shadow call failed")
            self._figures.shadow_failed(number, len(pairs))
            return
        self._figures.shadow_answered(number, len(pairs))
        for overlap, own_score, live_score in filter(None, compared):
            self._figures.compared(number, overlap=overlap, own_score=own_score, live_score=live_score)


def _compare(
    pair: _Pair, keys: NDArray[np.int64], scores: NDArray[np.float32]
) -> tuple[float, float, float] | None:
    """Share of the live top 10 that is in the other's, and the mean score of the other's and of the live one.

    None if the live answer is empty: there is nothing to compare with.
    """
    live_keys, live_score = _top(pair.keys, pair.scores)
    own_keys, own_score = _top(keys, scores)
    if not live_keys:
        return None
    return len(live_keys & own_keys) / len(live_keys), own_score, live_score


def _top(keys: NDArray[np.int64], scores: NDArray[Any]) -> tuple[set[int], float]:
    """The best 10 that are no empty slots, and their mean score; 0 if there are none."""
    filled = keys[:_TOP] != 0
    best = scores[:_TOP][filled]
    return set(keys[:_TOP][filled].tolist()), float(best.mean()) if len(best) else 0.0
