"""One `Recommend` request, whole: features → model → page, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog
from features.record import CachedAnswer, UserRecord
from features.store import FeatureStore, StoreError, StoreUnavailable
from gateway.coalescer import Coalescer, Waiting
from gateway.errors import ModelUnavailable
from gateway.metrics import Metrics
from gateway.model_inputs import Row, model_inputs
from gateway.page import PageItem, PageRequest, fallback_page, model_page
from gateway.routing import Router, ServingVersion
from gateway.scorer import Scorer, Scores

_FALLBACK_SHARE = 0.2
_NO_PAGE = np.empty(0, np.int64)
_MOST_BEING_KEPT = 16
"""Batches whose answers may wait for the disk at once: some commits' worth. What comes while so many wait is
not kept. While a disk hangs, all the batches of that time would else pile up in memory."""

log = logging.getLogger("riptide.gateway.recommend")


class Degraded(Enum):
    """Why a page is not the full answer of the model. The names are those of the .proto."""

    NO = "UNSPECIFIED"
    COLD_START = "COLD_START"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"


@dataclass(slots=True)
class Stages:
    """Milliseconds of each stage of one request."""

    queue: float = 0.0
    features: float = 0.0
    model: float = 0.0
    page: float = 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """What `Recommend` answers."""

    items: list[PageItem]
    version: int
    degraded: Degraded
    stages: Stages


@dataclass(frozen=True, slots=True)
class _Asked:
    request: PageRequest
    submitted: float


@dataclass(frozen=True, slots=True)
class _Scored:
    """The model's answer to one request; `keys` is None if nothing known to the version is in the history."""

    version: ServingVersion
    record: UserRecord
    stages: Stages
    keys: NDArray[np.int64] | None = None
    scores: NDArray[np.float32] | None = None
    reason_keys: NDArray[np.int64] | None = None


@dataclass(eq=False)
class Recommend:
    """The request path of one worker."""

    store: FeatureStore
    router: Router
    scorer: Scorer
    metrics: Metrics
    max_batch: int
    join: bool
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._coalescer: Coalescer[_Asked, _Scored] = Coalescer(
            self._score_batch, max_batch=self.max_batch, join=self.join
        )

    async def page(self, request: PageRequest, timeout_s: float) -> Page:
        """The page for a request: always one, whatever fails.

        Args:
            request: checked against the serving version's catalogue.
            timeout_s: the most that may be spent waiting for the store and the model.
        """
        began = time.perf_counter()
        try:
            scored = await self._coalescer.submit(_Asked(request, began), timeout_s)
        except StoreUnavailable as error:
            log.warning("fallback page: %s", error)
            return self._fallback(
                request, Degraded.STORE_UNAVAILABLE, stages=Stages(features=_ms_since(began))
            )
        except ModelUnavailable as error:
            log.debug("fallback page: %s", error)
            return await self._without_model(request, timeout_s, Stages(model=_ms_since(began)))
        except Exception:
            # A defect of ours, of one request in the batch perhaps: its neighbours get a page all the same.
            log.exception("fallback page")
            return await self._without_model(request, timeout_s, Stages(model=_ms_since(began)))
        started = time.perf_counter()
        if scored.keys is None or scored.scores is None:
            page = self._fallback(request, Degraded.COLD_START, scored.record, scored.stages)
        else:
            limit, reasons = request.limit, scored.reason_keys
            items = model_page(
                scored.version.catalog,
                scored.keys[:limit],
                scored.scores[:limit],
                reasons[:limit] if reasons is not None else None,
            )
            page = Page(items, scored.version.version, Degraded.NO, scored.stages)
        page.stages.page = _ms_since(started)
        return page

    async def close(self) -> None:
        """Finishes what is in flight, caches included."""
        await self._coalescer.close()
        while self._background:
            await asyncio.wait(self._background)

    async def _score_batch(self, batch: Sequence[Waiting[_Asked, _Scored]]) -> None:
        version = self.router.serving
        if version is None:
            raise ModelUnavailable("no version is ready in Triton")
        began = time.perf_counter()
        left_s = max(entry.deadline for entry in batch) - asyncio.get_running_loop().time()
        records = await self._read([entry.asked.request.user_id for entry in batch], left_s)
        features_ms = _ms_since(began)

        known: list[tuple[Waiting[_Asked, _Scored], Row, Stages]] = []
        for entry, record in zip(batch, records, strict=True):
            stages = Stages(queue=(began - entry.asked.submitted) * 1000, features=features_ms)
            if _knows_any(version.catalog, record):
                known.append((entry, _row(entry.asked.request, record, version), stages))
            elif not entry.answer.done():
                entry.answer.set_result(_Scored(version, record, stages))
        if not known:
            return

        entries, rows, all_stages = zip(*known, strict=True)
        stale = any(row.answer is None for row in rows)
        began = time.perf_counter()
        scores = await self.scorer.score(
            version,
            model_inputs(version, rows),
            reasons=any(entry.asked.request.explain for entry in entries),
            vectors=stale,
            timeout_s=max(entry.deadline for entry in entries) - asyncio.get_running_loop().time(),
        )
        model_ms = _ms_since(began)
        self.metrics.batch(version.version, rows, features_ms, model_ms)
        for index, (entry, row, stages) in enumerate(zip(entries, rows, all_stages, strict=True)):
            stages.model = model_ms
            if not entry.answer.done():
                reasons = scores.reason_keys
                entry.answer.set_result(
                    _Scored(
                        version,
                        row.record,
                        stages,
                        scores.item_keys[index],
                        scores.scores[index],
                        reasons[index] if reasons is not None and entry.asked.request.explain else None,
                    )
                )
        requests = [entry.asked.request for entry in entries]
        if answers := _answers_to_keep(version.version, requests, rows, scores):
            self._keep(answers)

    def _keep(self, answers: Mapping[str, CachedAnswer]) -> None:
        # Off the request path: the page is on its way already, and a cache may be lost.
        if len(self._background) >= _MOST_BEING_KEPT:
            return
        task = asyncio.get_running_loop().create_task(self._put(answers))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _put(self, answers: Mapping[str, CachedAnswer]) -> None:
        try:
            await self.store.put_answers(answers)
        except StoreError as error:
            log.warning("answers were not cached: %s", error)

    async def _read(self, user_ids: Sequence[str], timeout_s: float) -> list[UserRecord]:
        try:
            async with asyncio.timeout(timeout_s):
                return await self.store.read(user_ids)
        except TimeoutError as error:
            raise StoreUnavailable("no answer within the time left") from error

    async def _without_model(self, request: PageRequest, timeout_s: float, stages: Stages) -> Page:
        try:
            # What was left to the model is spent; a fraction of it again still leaves the caller's deadline.
            [record] = await self._read([request.user_id], timeout_s * _FALLBACK_SHARE)
        except StoreUnavailable:
            return self._fallback(request, Degraded.STORE_UNAVAILABLE, stages=stages)
        return self._fallback(request, Degraded.MODEL_UNAVAILABLE, record, stages)

    def _fallback(
        self,
        request: PageRequest,
        why: Degraded,
        record: UserRecord | None = None,
        stages: Stages | None = None,
    ) -> Page:
        catalog = self.router.catalog
        items = fallback_page(request, catalog, record) if record else fallback_page(request, catalog)
        return Page(items, self.router.catalog_version, why, stages or Stages())


def _row(request: PageRequest, record: UserRecord, version: ServingVersion) -> Row:
    answer = record.fresh_answer
    if answer is not None and answer.version != version.version:
        answer = None
    return Row(record, answer, request.categories, request.excluded, request.include_seen)


def _knows_any(catalog: Catalog, record: UserRecord) -> bool:
    # The newest first: almost always the first look answers.
    return any(int(key) in catalog for key in record.keys[::-1])


def _answers_to_keep(
    version: int, requests: Sequence[PageRequest], rows: Sequence[Row], scores: Scores
) -> dict[str, CachedAnswer]:
    """The answers worth keeping: new vectors, and the page of a user whose kept one is not current."""
    now = int(time.time())
    answers: dict[str, CachedAnswer] = {}
    for index, (request, row) in enumerate(zip(requests, rows, strict=True)):
        known = row.answer
        if known is not None and (known.page_is_current or not request.plain):
            continue
        if known is None:
            assert scores.user_vector is not None, "asked for whenever a row is stale"
            vector = scores.user_vector[index]
        else:
            vector = known.vector
        page = scores.item_keys[index] if request.plain else _NO_PAGE
        # Of a user's several requests in a batch, one with a page counts.
        if request.user_id not in answers or request.plain:
            answers[request.user_id] = CachedAnswer(
                version, row.record.revision, now, vector, page[page != 0], page_is_current=request.plain
            )
    return answers


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
