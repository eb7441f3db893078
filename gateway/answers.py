"""Keeping what the model answered with the user's record, off the request path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from features.record import CachedAnswer
from features.store import FeatureStore, StoreError
from gateway.model_inputs import Row
from gateway.scorer import Scores

_NO_PAGE = np.empty(0, np.int64)
_MOST_BEING_KEPT = 16
"""Batches whose answers may wait for the disk at once: some commits' worth. What comes while so many wait is
not kept. While a disk hangs, all the batches of that time would else pile up in memory."""

log = logging.getLogger("riptide.gateway.answers")


class Answers:
    """Writes answers to the store. Each may be lost: they are a cache."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    def keep(self, answers: Mapping[str, CachedAnswer]) -> None:
        """Begins to write them, user id → answer."""
        if not answers or len(self._writing) >= _MOST_BEING_KEPT:
            return
        task = asyncio.get_running_loop().create_task(self._put(answers))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Finishes what was begun."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _put(self, answers: Mapping[str, CachedAnswer]) -> None:
        try:
            await self._store.put_answers(answers)
        except StoreError as error:
            log.warning("answers were not cached: %s", error)


def answers_to_keep(
    version: int, places: Sequence[int], rows: Sequence[Row], scores: Scores, now: int
) -> dict[str, CachedAnswer]:
    """The answers worth keeping: new vectors, and the plain page of a user whose kept one is not current.

    A vector depends on the history, the attributes and the moment, so it is kept whatever page was asked for
    now, and never from a page of another moment.

    Args:
        version: the version that answered.
        places: those of the rows that may be kept.
        rows: the whole batch, as it was sent.
        scores: its answer.
        now: Unix seconds, the moment that it was asked for.
    """
    answers: dict[str, CachedAnswer] = {}
    for index in places:
        request = rows[index].request
        if request.time:
            continue
        known = rows[index].answer
        if known is not None and (known.page_is_current or not request.plain):
            continue
        # Of a user's several requests in a batch, one with a page counts.
        if request.user_id in answers and not request.plain:
            continue
        page = scores.item_keys[index] if request.plain else _NO_PAGE
        page = page[page != 0]
        if known is not None:
            # The vector is of the moment and the history that it was of, however the page came about.
            answers[request.user_id] = known._replace(page_keys=page, page_is_current=True)
            continue
        assert scores.user_vector is not None, "asked for whenever a row is stale"
        answers[request.user_id] = CachedAnswer(
            version,
            rows[index].record.revision,
            now,
            scores.user_vector[index],
            page,
            page_is_current=request.plain,
        )
    return answers
