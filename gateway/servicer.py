"""The gRPC edge: check, call, convert. The limits are in `validation`, the statuses in `errors`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
import numpy as np

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer
from features.catalog import CatalogItem
from features.schema import item_key
from features.store import FeatureStore
from gateway.errors import NotFound, status_of
from gateway.metrics import Metrics
from gateway.page import PageItem, PageRequest
from gateway.recommend import Degraded, Recommend
from gateway.routing import Router
from gateway.validation import check_events, check_filter, check_id, check_limit, check_request_id

# What part of the caller's time may be spent waiting for the model: the rest brings the fallback home.
_MODEL_SHARE = 0.75

_DEGRADED: dict[Degraded, Any] = {
    reason: pb.DegradedReason.Value(f"DEGRADED_REASON_{reason.value}") for reason in Degraded
}

Request = TypeVar("Request")
Response = TypeVar("Response")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = logging.getLogger("riptide.gateway.calls")


class Recommender(RecommenderServicer):
    """The `riptide.v1.Recommender` service of one worker."""

    def __init__(
        self,
        recommend: Recommend,
        store: FeatureStore,
        router: Router,
        metrics: Metrics,
        *,
        default_deadline_s: float,
        model_timeout_s: float,
        access_log: bool,
    ) -> None:
        self._recommend = recommend
        self._store = store
        self._router = router
        self._metrics = metrics
        self._default_deadline_s = default_deadline_s
        self._model_timeout_s = model_timeout_s
        self._log_all = access_log
        self.in_flight = 0
        """Calls that have come and are not answered yet."""

    async def Recommend(self, request: pb.RecommendRequest, context: Context) -> pb.RecommendResponse:
        return await self._answer("Recommend", self._recommended, request, request.request_id, context)

    async def SimilarItems(
        self, request: pb.SimilarItemsRequest, context: Context
    ) -> pb.SimilarItemsResponse:
        return await self._answer("SimilarItems", self._similar, request, request.request_id, context)

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: Context
    ) -> pb.RecordEventsResponse:
        return await self._answer("RecordEvents", self._recorded, request, request.request_id, context)

    async def DescribeUser(
        self, request: pb.DescribeUserRequest, context: Context
    ) -> pb.DescribeUserResponse:
        return await self._answer("DescribeUser", self._described, request, "", context)

    async def ForgetUser(self, request: pb.ForgetUserRequest, context: Context) -> pb.ForgetUserResponse:
        return await self._answer("ForgetUser", self._forgotten, request, "", context)

    async def _answer(
        self,
        method: str,
        handle: Callable[[Request, str, float], Awaitable[Response]],
        request: Request,
        request_id: str,
        context: Context,
    ) -> Response:
        began = time.perf_counter()
        self.in_flight += 1
        asked_id, request_id = request_id, ""
        try:
            request_id = check_request_id(asked_id) or os.urandom(8).hex()
            remaining_s = context.time_remaining()
            response = await handle(request, request_id, remaining_s or self._default_deadline_s)
        except asyncio.CancelledError:
            # The caller has gone, or its deadline has passed.
            self._metrics.answered(method, grpc.StatusCode.CANCELLED.name, time.perf_counter() - began)
            raise
        except Exception as error:
            code, sentence = status_of(error)
            request_id = request_id or os.urandom(8).hex()
            duration_s = time.perf_counter() - began
            self._metrics.answered(method, code.name, duration_s)
            log.log(
                logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.INFO,
                str(error) or sentence,
                extra=_fields(method, request_id, code.name, duration_s),
                exc_info=error if code is grpc.StatusCode.INTERNAL else None,
            )
            # Metadata is ASCII by gRPC's rules.
            await context.abort(
                code, sentence, (("x-request-id", request_id),) if request_id.isascii() else ()
            )
            raise AssertionError("abort raises") from error
        finally:
            self.in_flight -= 1
        duration_s = time.perf_counter() - began
        self._metrics.answered(method, "OK", duration_s)
        if self._log_all:
            log.info("answered", extra=_fields(method, request_id, "OK", duration_s))
        return response

    async def _recommended(
        self, request: pb.RecommendRequest, request_id: str, remaining_s: float
    ) -> pb.RecommendResponse:
        began = time.perf_counter()
        user_id = check_id("user_id", request.user_id)
        check_limit(request.limit)
        categories: tuple[str, ...] = ()
        excluded: tuple[int, ...] = ()
        include_seen = False
        if request.HasField("filter"):
            categories, excluded = check_filter(request.filter, self._router.catalog)
            include_seen = request.filter.include_seen
        page = await self._recommend.page(
            PageRequest(user_id, request.limit, categories, excluded, include_seen, request.explain),
            min(self._model_timeout_s, remaining_s * _MODEL_SHARE),
        )
        response = pb.RecommendResponse(
            model=pb.ModelVersion(name=self._router.name, version=page.version),
            degraded=_DEGRADED[page.degraded],
            request_id=request_id,
        )
        _fill(response.items, page.items)
        stages = page.stages
        response.stages_ms.queue = stages.queue
        response.stages_ms.features = stages.features
        response.stages_ms.model = stages.model
        response.stages_ms.page = stages.page
        response.stages_ms.total = (time.perf_counter() - began) * 1000
        if page.degraded is Degraded.NO:
            self._metrics.page(page.version, stages.queue, stages.page)
            return response
        reason = page.degraded.value
        self._metrics.degraded(reason)
        if page.degraded is not Degraded.COLD_START:
            log.info("degraded", extra={"request_id": request_id, "reason": reason, "version": page.version})
        return response

    async def _similar(
        self, request: pb.SimilarItemsRequest, request_id: str, remaining_s: float
    ) -> pb.SimilarItemsResponse:
        item_id = check_id("item_id", request.item_id)
        check_limit(request.limit)
        catalog = self._router.catalog
        categories, excluded = check_filter(request.filter, catalog)
        neighbours = catalog.neighbours(item_key(item_id))
        if neighbours is None:
            raise NotFound(f"item_id: {item_id!r} is not in the catalogue of the serving version")
        refused, wanted = frozenset(excluded), frozenset(categories)
        page = [
            PageItem(item, score)
            for key, score in zip(*(values.tolist() for values in neighbours), strict=True)
            if key not in refused
            and (item := catalog.get(key)) is not None
            and not (wanted and wanted.isdisjoint(item.categories))
        ]
        response = pb.SimilarItemsResponse(
            model=pb.ModelVersion(name=self._router.name, version=self._router.catalog_version),
            request_id=request_id,
        )
        _fill(response.items, page[: request.limit])
        return response

    async def _recorded(
        self, request: pb.RecordEventsRequest, request_id: str, remaining_s: float
    ) -> pb.RecordEventsResponse:
        events = check_events(request.events, self._router.catalog)
        async with asyncio.timeout(remaining_s):
            appended = await self._store.append(events)
        self._metrics.events(appended.recorded, appended.duplicates)
        return pb.RecordEventsResponse(
            recorded=appended.recorded, duplicates=appended.duplicates, request_id=request_id
        )

    async def _described(
        self, request: pb.DescribeUserRequest, request_id: str, remaining_s: float
    ) -> pb.DescribeUserResponse:
        user_id = check_id("user_id", request.user_id)
        async with asyncio.timeout(remaining_s):
            [record] = await self._store.read([user_id])
            excluded = await self._store.is_excluded(user_id)
        if not (len(record.keys) or record.attributes_json or excluded):
            raise NotFound("user_id: nothing is stored of this user")
        response = pb.DescribeUserResponse(
            user_id=user_id, attributes=record.attributes, excluded_from_training=excluded
        )
        columns = (record.keys, record.types, record.times, record.weights)
        for key, kind, when, weight in zip(*(column.tolist() for column in columns), strict=True):
            item = self._known_item(key)
            response.events.add(item_id=item.item_id, title=item.title, type=kind, time=when, weight=weight)
        if record.answer is not None:
            response.user_vector.extend(record.answer.vector.astype(np.float32).tolist())
            response.user_vector_version = record.answer.version
            pages = map(self._known_item, record.answer.page_keys.tolist())
            response.last_page_item_ids.extend(item.item_id for item in pages)
        return response

    async def _forgotten(
        self, request: pb.ForgetUserRequest, request_id: str, remaining_s: float
    ) -> pb.ForgetUserResponse:
        user_id = check_id("user_id", request.user_id)
        async with asyncio.timeout(remaining_s):
            return pb.ForgetUserResponse(existed=await self._store.forget(user_id))

    def _known_item(self, key: int) -> CatalogItem:
        # The store keeps keys, not ids: of an item that left the catalogue the key is all there is to show.
        return self._router.catalog.get(key) or CatalogItem(f"key:{key}", "(no longer in the catalogue)", ())


_TEMPLATES: dict[str, tuple[CatalogItem, pb.RecommendedItem]] = {}
_MOST_TEMPLATES = 100_000


def _template(item: CatalogItem) -> pb.RecommendedItem:
    """The part of a page's line that is the same on every page: copying it is faster than filling it anew."""
    known = _TEMPLATES.get(item.item_id)
    # By identity: two versions may show an item differently, and comparing it whole would cost what is saved.
    if known is not None and known[0] is item:
        return known[1]
    if len(_TEMPLATES) >= _MOST_TEMPLATES:
        _TEMPLATES.clear()
    template = pb.RecommendedItem(item_id=item.item_id, title=item.title, categories=item.categories)
    _TEMPLATES[item.item_id] = (item, template)
    return template


def _fill(items: Any, page: Sequence[PageItem]) -> None:
    items.extend([_template(line.item) for line in page])
    for rank, (filled, line) in enumerate(zip(items, page, strict=True), 1):
        filled.score = line.score
        filled.rank = rank
        if line.reason is not None:
            filled.reason.item_id = line.reason.item_id
            filled.reason.title = line.reason.title


def _fields(method: str, request_id: str, code: str, duration_s: float) -> dict[str, Any]:
    # No user id: logs live longer than ForgetUser may allow.
    return {
        "method": method,
        "request_id": request_id,
        "code": code,
        "duration_ms": round(duration_s * 1000, 3),
    }
