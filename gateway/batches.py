"""Requests on their way to the model and their pages on the way back, a batch at a time: one read of the
store, one call of Triton."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from opentelemetry.trace import SpanKind

from features.record import UserRecord
from features.store import FeatureStore, StoreUnavailable
from features.traffic import PINNED, STABLE
from gateway.answers import Answers, answers_to_keep
from gateway.coalescer import Coalescer, Waiting
from gateway.errors import VersionGone
from gateway.figures import Figures
from gateway.metrics import Metrics
from gateway.model_inputs import Row, knows, model_inputs
from gateway.page import Degraded, Page, Stages, model_page
from gateway.routing import Router
from gateway.scorer import Scorer, Scores
from gateway.shadow import Shadow
from gateway.tracing import Stage
from gateway.vectors import Asked, Inline, Vectors
from gateway.versions import ServingVersion
from gateway.wire import Lines, response

_AT_ONCE_S = 0.001
"""How long pages are made before those leave who have theirs, and new calls come in."""


class Unknown(NamedTuple):
    """Instead of a page, for a user of whom the version knows nothing."""

    record: UserRecord
    stages: Stages


@dataclass(eq=False)
class Batches:
    """The batches of one worker. Each version has its own coalescer: a slow one holds up no other's calls."""

    store: FeatureStore
    router: Router
    scorer: Scorer
    metrics: Metrics
    figures: Figures
    answers: Answers
    shadow: Shadow
    vectors: Vectors
    lines: Lines
    max_batch: int
    join: bool
    _lanes: dict[int, Coalescer[Asked, Page | Unknown]] = field(default_factory=dict)

    def of(self, version: int) -> Coalescer[Asked, Page | Unknown]:
        """Where requests for a version are submitted.

        `submit` raises `VersionGone` if the version is not ready, `ModelUnavailable` if it does not answer in
        time, `StoreUnavailable` if the store does not.
        """
        lane = self._lanes.get(version)
        if lane is None:
            # By number, not by version: a lane that nobody uses any more must keep no catalogue open.
            self._lanes = {
                number: lane
                for number, lane in self._lanes.items()
                if number in self.router.ready or not lane.idle
            }
            lane = self._lanes[version] = Coalescer(
                partial(self._answer, version), max_batch=self.max_batch, join=self.join
            )
        return lane

    async def read(self, user_ids: Sequence[str], timeout_s: float) -> list[UserRecord]:
        """The records of users.

        Raises:
            StoreUnavailable: the store does not answer, or not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.store.read(user_ids)
        except TimeoutError as error:
            raise StoreUnavailable("no answer within the time left") from error

    async def close(self) -> None:
        """Finishes what is in flight, caches included."""
        for _ in range(2):  # a batch that ends may set requests aside, and those come back
            for lane in list(self._lanes.values()):
                await lane.close()
            await self.vectors.close()
        await self.shadow.close()
        await self.answers.close()

    async def _answer(self, number: int, batch: Sequence[Waiting[Asked, Page | Unknown]]) -> None:
        version = self.router.ready.get(number)
        if version is None:
            raise VersionGone(f"version {number} is no longer ready in Triton")
        began = time.perf_counter()
        traced = [(entry, trace) for entry in batch if (trace := entry.asked.request.trace) is not None]
        for entry, trace in traced:
            trace.past("queue", entry.asked.back or entry.asked.submitted, began)
        left_s = max(entry.deadline for entry in batch) - asyncio.get_running_loop().time()
        with Stage("features", [trace for _, trace in traced]):
            records = await self.read([entry.asked.request.user_id for entry in batch], left_s)
        features_ms = _ms_between(began, time.perf_counter())

        now_ns, inline = time.time_ns(), Inline()
        now = now_ns // 1_000_000_000
        expired = False
        entries: list[Waiting[Asked, Page | Unknown]] = []
        rows: list[Row] = []
        due: set[str] = set()
        for entry, record in zip(batch, records, strict=True):
            asked = entry.asked
            if not knows(version, record):
                if not entry.answer.done():
                    stages = Stages(_ms_between(asked.submitted, began), features_ms)
                    entry.answer.set_result(Unknown(record, stages))
                continue
            vector = self.vectors.choose(entry, record, version, now_ns, inline, self.of(number).put_first)
            if vector is None:
                expired = expired or not (entry.aside or asked.cohort == PINNED)
                continue
            if vector.due and asked.cohort != PINNED:
                due.add(asked.request.user_id)
            entries.append(entry)
            rows.append(Row(record, vector.answer, asked.request, vector.behind, vector.stale))
        if expired:
            self.figures.batch_failed(number)
        if not entries:
            return

        if due:
            self.vectors.refresh(due)
        encoded = any(row.answer is None for row in rows)
        own = [entry for entry in entries if entry.asked.cohort != PINNED]
        sent = time.perf_counter()
        # Not those that wait for the encoder, are answered without the model, or whose caller has gone.
        sharing = [trace for entry, trace in traced if not (entry.aside or entry.answer.done())]
        try:
            with Stage("model", sharing, kind=SpanKind.CLIENT) as stage:
                stage.tell(version=number, batch_rows=len(rows))
                scores = await self.scorer.score(
                    version,
                    model_inputs(version, rows, now),
                    reasons=any(entry.asked.request.explain for entry in entries),
                    vectors=encoded,
                    timeout_s=max(entry.deadline for entry in entries) - asyncio.get_running_loop().time(),
                    metadata=stage.metadata,
                )
        except Exception as error:
            if own:
                self.figures.batch_failed(number)
            if isinstance(error, VersionGone):
                self.router.gone(version, str(error))
            raise
        model_ms = _ms_between(sent, time.perf_counter())
        self.metrics.batch(number, rows, features_ms, model_ms)
        if expired:
            pass  # counted
        elif own and _in_time(own):
            self.figures.batch_answered(number, model_ms, encoded=encoded)
        elif own:
            self.figures.batch_failed(number)
        await self._hand_out(version, entries, rows, scores, began, features_ms, model_ms)
        # What an operator looks at leaves no trace in the user's record.
        kept = [place for place, entry in enumerate(entries) if entry.asked.cohort != PINNED]
        self.answers.keep(answers_to_keep(number, kept, rows, scores, now))
        if self.router.shadowed is not None and version is self.router.serving:
            live = [index for index, entry in enumerate(entries) if entry.asked.cohort == STABLE]
            self.shadow.offer(live, rows, scores, crowded=self.of(number).backlog >= self.max_batch)

    async def _hand_out(
        self,
        version: ServingVersion,
        entries: Sequence[Waiting[Asked, Page | Unknown]],
        rows: Sequence[Row],
        scores: Scores,
        began: float,
        features_ms: float,
        model_ms: float,
    ) -> None:
        """Gives all who wait their pages, made to the last byte.

        Here and not by whoever waits: one page after the other finds in the processor's caches what the page
        before has left there, and among the calls of gRPC none does. After a millisecond of it those go first
        who have their pages.
        """
        # To cut a row out of an array takes as long as to read ten numbers of it.
        most = max(entry.asked.request.limit for entry in entries)
        keys, values = scores.item_keys[:, :most].tolist(), scores.scores[:, :most].tolist()
        reasons = scores.reason_keys[:, :most].tolist() if scores.reason_keys is not None else None
        number, catalog, lines = version.version, version.catalog, self.lines.of(version.catalog)
        model, whole, stale = version.name, Degraded.NO, Degraded.STALE_VECTOR
        latency_ms: list[float] = []
        queue_ms: list[float] = []
        page_ms: list[float] = []

        def count() -> None:
            self.figures.answered(number, latency_ms)
            self.metrics.stages(number, queue_ms, page_ms)
            for figures in (latency_ms, queue_ms, page_ms):
                figures.clear()

        came = started = time.perf_counter()
        for index, (entry, row) in enumerate(zip(entries, rows, strict=True)):
            if entry.answer.done():
                continue
            asked, request, limit = entry.asked, entry.asked.request, entry.asked.request.limit
            cohort, submitted, degraded = asked.cohort, asked.submitted, stale if row.stale else whole
            try:
                best, best_scores = keys[index], values[index]
                if limit < most:
                    best, best_scores = best[:limit], best_scores[:limit]
                if reasons is None or not request.explain:
                    items = lines.scored(best, best_scores)
                else:
                    items = lines.wire(model_page(catalog, best, best_scores, reasons[index][:limit]))
                ended = time.perf_counter()
                queued_ms, made_ms = (began - submitted) * 1000, (ended - came) * 1000
                total_ms = (ended - request.came) * 1000
                stages = Stages(queued_ms, features_ms, model_ms, made_ms, total_ms)
                wire = response(model, number, cohort, degraded, request.request_id, stages, items)
            except Exception as error:  # of an item that cannot be read, say: it is nobody else's page
                entry.answer.set_exception(error)
                continue
            entry.answer.set_result(Page(wire, number, cohort, degraded))
            if request.trace is not None:
                request.trace.past("page", came, ended)
            if cohort != PINNED:
                latency_ms.append((ended - submitted) * 1000)
            if not row.stale:
                queue_ms.append(queued_ms)
                page_ms.append(made_ms)
            if ended - started > _AT_ONCE_S:
                count()  # before anybody is answered
                await asyncio.sleep(0)
                started = time.perf_counter()
        count()


def _in_time(entries: Sequence[Waiting[Asked, Page | Unknown]]) -> bool:
    """Whether an answer that has just come is in time for any of these requests.

    One whose caller hung up counts by its deadline: that the caller went says nothing of the version.
    """
    now = asyncio.get_running_loop().time()
    return any(
        not entry.answer.done() or (entry.answer.cancelled() and now < entry.deadline) for entry in entries
    )


def _ms_between(began: float, ended: float) -> float:
    return (ended - began) * 1000
