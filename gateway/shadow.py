"""Shadow calls: the candidate answers a sample of the stable version's requests too, and nobody sees it.

A sample leaves after its live answers have, and its answers are compared with those: which items the two top
10s share, and in which order those stand in each. Scores are not compared: one version may answer dot
products of any size where another answers probabilities.

It must cost live calls as little as can be: one shadow call of few rows is in flight at a time, and while
live calls queue there is none. What there is no room for is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import random

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ModelUnavailable
from gateway.figures import Figures
from gateway.metrics import Metrics
from gateway.model_inputs import Row, knows, model_inputs
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


class Shadow:
    """The shadow calls of one worker."""

    def __init__(
        self, router: Router, scorer: Scorer, figures: Figures, metrics: Metrics, *, timeout_s: float
    ) -> None:
        """`timeout_s`: the most that one call may take."""
        self._router = router
        self._scorer = scorer
        self._figures = figures
        self._metrics = metrics
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
        # No cached answer is of the candidate: it encodes each.
        offered = [(rows[place]._replace(answer=None), scores.item_keys[place]) for place in sample]
        pairs = [_Pair(row, keys) for row, keys in offered if knows(candidate, row.record)]
        # As of live calls, those of users without a history do not count, whatever is known of them.
        with_history = sum(len(row.record.keys) > 0 for row, _ in offered)
        if cold := with_history - sum(len(pair.row.record.keys) > 0 for pair in pairs):
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
                model_inputs(candidate, [pair.row for pair in pairs], int(time.time())),
                reasons=False,
                vectors=False,
                timeout_s=self._timeout_s,
            )
            compared = [_compare(pair.keys, own) for pair, own in zip(pairs, scores.item_keys, strict=True)]
        except Exception as error:
            if not isinstance(error, ModelUnavailable):
                log.exception("a shadow call failed")
            self._figures.shadow_failed(number, len(pairs))
            self._metrics.shadowed(number, (), len(pairs))
            return
        self._figures.shadow_answered(number, len(pairs))
        alike = [both for both in compared if both is not None]
        for overlap, correlation in alike:
            self._figures.compared(number, overlap=overlap, correlation=correlation)
        self._metrics.shadowed(number, [overlap for overlap, _ in alike])


def _compare(live: NDArray[np.int64], own: NDArray[np.int64]) -> tuple[float, float | None] | None:
    """Share of the live top 10 that is in the other's, and how alike both put the items that they share.

    The latter is Spearman's rank correlation: 1 for the same order, -1 for the reverse, None for fewer than
    two items. None altogether if the live answer is empty: there is nothing to compare with.
    """
    live_top, own_top = ([key for key in keys[:_TOP].tolist() if key] for keys in (live, own))
    if not live_top:
        return None
    shared = [key for key in live_top if key in own_top]
    overlap, n = len(shared) / len(live_top), len(shared)
    if n < 2:
        return overlap, None
    place_of = {key: place for place, key in enumerate(key for key in own_top if key in shared)}
    squares = sum((place - place_of[key]) ** 2 for place, key in enumerate(shared))
    return overlap, 1 - 6 * squares / (n * (n * n - 1))
