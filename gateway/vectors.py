"""Which user vector each request of a batch is scored with, or that it waits for one outside of the batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from features.record import CachedAnswer, UserRecord, with_answer
from features.traffic import PINNED
from gateway.coalescer import Waiting
from gateway.errors import ModelUnavailable
from gateway.freshness import NOTHING, Cached, cached
from gateway.metrics import Metrics
from gateway.page import PageRequest
from gateway.refresher import Refresher
from gateway.tracing import Stage
from gateway.versions import ServingVersion

_ENCODER_SHARE = 0.7
"""What part of the time left may be spent waiting for the encoder, where there is no vector at all."""
_MOST_INLINE = 2
"""Rows that are encoded with a batch by a version whose encoder is slow: all others in it wait for them."""
_STALE_WAIT_S = 0.1
"""The same where there is one that lags by more than it may."""


class Asked(NamedTuple):
    """A request for one version."""

    request: PageRequest
    cohort: str
    submitted: float
    """On the clock of `time.perf_counter`, seconds."""
    waited: bool = False
    """Whether the encoder has been waited for: it is not a second time."""
    vector: CachedAnswer | None = None
    """What the encoder answered then."""
    back: float | None = None
    """When it was submitted again after that; None: not yet."""


Entry: TypeAlias = Waiting[Asked, Any]


class Vector(NamedTuple):
    """What a request is scored with."""

    answer: CachedAnswer | None
    """Whose vector is used; None: the row is encoded with its batch."""
    behind: bool
    """Whether that vector lags behind the user."""
    due: bool
    """Whether it is to be refreshed."""
    stale: bool
    """Whether it lags by more than it may."""


@dataclass(slots=True)
class Inline:
    """How many rows of one batch may still be encoded with it, by a version whose encoder is slow."""

    left: int = _MOST_INLINE

    def take(self) -> bool:
        """Whether there is room for one more, which is taken."""
        self.left -= 1
        return self.left >= 0


@dataclass(eq=False)
class Vectors:
    """The choices of one worker."""

    refresher: Refresher
    metrics: Metrics
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)

    def choose(
        self,
        entry: Entry,
        record: UserRecord,
        version: ServingVersion,
        now_ns: int,
        inline: Inline,
        submit: Callable[[Entry], None],
    ) -> Vector | None:
        """The vector for a request; None if it is not of this batch any more.

        Then it waits for the encoder and is given to `submit` after that, or it has its answer: that there is
        no vector in time.
        """
        asked = entry.asked
        # A vector is of now, so none serves a page of another moment.
        kept = NOTHING if asked.request.time else cached(record, version, now_ns)
        if asked.vector is not None and kept.within(version.max_lag_s) is None:
            waited_for = cached(with_answer(record._replace(answer=None), asked.vector), version, now_ns)
            kept = waited_for if waited_for.answer is not None else kept
        if kept.answer is not None and not kept.lag_s:
            return Vector(kept.answer, behind=False, due=False, stale=False)
        answer = kept.within(version.max_lag_s)
        if answer is not None:
            due = kept.due(version.max_lag_s)
            return Vector(answer, behind=True, due=due, stale=False)
        if not version.max_lag_s:
            return Vector(None, behind=False, due=False, stale=False)
        apart = not asked.request.time and asked.cohort != PINNED
        if apart and self.refresher.encodes(version):
            if not asked.waited and self._waits(entry, version, kept, submit):
                return None
            # The encoder does not follow. Not all wait for it; who is read now is among the first it takes.
            self.refresher.note([asked.request.user_id])
        elif kept.answer is None and inline.take():
            return Vector(None, behind=False, due=False, stale=False)
        if kept.answer is not None:
            return Vector(kept.answer, behind=True, due=True, stale=True)
        if not entry.answer.done():
            entry.answer.set_exception(ModelUnavailable("the encoder has no room for the user"))
        return None

    def refresh(self, user_ids: Iterable[str]) -> None:
        """Has vectors refreshed that are due."""
        self.refresher.note(user_ids)

    async def close(self) -> None:
        """Waits for the requests that wait."""
        while self._waiting:
            await asyncio.wait(self._waiting)

    def _waits(
        self, entry: Entry, version: ServingVersion, kept: Cached, submit: Callable[[Entry], None]
    ) -> bool:
        """Whether a request waits for the encoder: outside of its batch it waits for a few others, and inside
        all would wait for it. It does not where that would take too long."""
        left_s = entry.deadline - asyncio.get_running_loop().time()
        patience_s = left_s * _ENCODER_SHARE
        if kept.answer is not None:
            patience_s = min(patience_s, _STALE_WAIT_S)
        if self.refresher.wait_s(version) > patience_s:
            return False
        self.metrics.waits_for_encoder()
        entry.aside = True
        task = asyncio.get_running_loop().create_task(self._wait(entry, version, patience_s, submit))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return True

    async def _wait(
        self, entry: Entry, version: ServingVersion, patience_s: float, submit: Callable[[Entry], None]
    ) -> None:
        vector = None
        # If it comes too late, or fails, the page is made of what there is.
        with suppress(ModelUnavailable), Stage("encoder", (entry.asked.request.trace,)):
            vector = await self.refresher.encoded(entry.asked.request.user_id, version, patience_s)
        entry.asked = entry.asked._replace(waited=True, vector=vector, back=time.perf_counter())
        submit(entry)
