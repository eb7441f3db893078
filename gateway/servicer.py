"""The gRPC edge: check, call, convert. The limits are in `validation`, the statuses in `errors`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Any, TypeAlias

import grpc
import numpy as np
from google.protobuf import message_factory

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import CatalogItem
from features.schema import item_key
from features.store import FeatureStore
from gateway.errors import NotFound, Overloaded, status_of
from gateway.metrics import Metrics
from gateway.page import PageRequest, similar_page
from gateway.recommend import Degraded, Recommend
from gateway.routing import Router
from gateway.validation import check_events, check_filter, check_id, check_limit, check_request_id
from gateway.wire import Lines

# What part of the caller's time may be spent waiting for the model: the rest brings the fallback home.
_MODEL_SHARE = 0.75

_DEGRADED: dict[Degraded, Any] = {
    reason: pb.DegradedReason.Value(f"DEGRADED_REASON_{reason.value}") for reason in Degraded
}

SERVICE = pb.DESCRIPTOR.services_by_name["Recommender"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = logging.getLogger("riptide.gateway.calls")


class Recommender:
    """The `riptide.v1.Recommender` service of one worker. Its methods answer in wire format: see `wire`."""

    def __init__(
        self,
        recommend: Recommend,
        store: FeatureStore,
        router: Router,
        metrics: Metrics,
        *,
        max_in_flight: int,
        default_deadline_s: float,
        model_timeout_s: float,
        access_log: bool,
    ) -> None:
        self._recommend = recommend
        self._store = store
        self._router = router
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._default_deadline_s = default_deadline_s
        self._model_timeout_s = model_timeout_s
        self._log_all = access_log
        self._lines = Lines()
        self.in_flight = 0
        """Calls that have come and are not answered yet."""
        self._failing = 0  # those of them that have failed, while gRPC sends that

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given: every method of the contract; each takes its message, answers bytes."""
        handle: dict[str, Callable[[Any, str, float], Awaitable[bytes]]] = {
            "Recommend": self._recommended,
            "SimilarItems": self._similar,
            "RecordEvents": self._recorded,
            "DescribeUser": self._described,
            "ForgetUser": self._forgotten,
        }
        methods: dict[str, Any] = {
            method.name: grpc.unary_unary_rpc_method_handler(
                partial(self._answer, method.name, handle[method.name]),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            )
            for method in SERVICE.methods
        }
        return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)

    async def _answer(
        self,
        method: str,
        handle: Callable[[Any, str, float], Awaitable[bytes]],
        request: Any,
        context: Context,
    ) -> bytes:
        began = time.perf_counter()
        self.in_flight += 1
        request_id = ""
        try:
            request_id = check_request_id(request.request_id) or _new_id()
            if self.in_flight - self._failing > self._max_in_flight:
                # Here, not by gRPC, which counts other services' calls too, and tells no metric of a refusal.
                raise Overloaded(f"more than {self._max_in_flight} calls in flight; wait, then call again")
            remaining_s = context.time_remaining()
            if remaining_s is None:
                remaining_s = self._default_deadline_s
            elif remaining_s <= 0:
                raise TimeoutError  # nobody waits for the answer any more
            response = await handle(request, request_id, remaining_s)
        except asyncio.CancelledError:
            # The caller has gone, or its deadline has passed.
            self._metrics.answered(method, grpc.StatusCode.CANCELLED.name, time.perf_counter() - began)
            raise
        except Exception as error:
            code, sentence = status_of(error)
            request_id = request_id or _new_id()
            duration_s = time.perf_counter() - began
            self._metrics.answered(method, code.name, duration_s)
            log.log(
                logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.INFO,
                "%s",
                str(error) or sentence,
                extra={**_fields(method, request_id, code.name, duration_s), "error": type(error).__name__},
                exc_info=error if code is grpc.StatusCode.INTERNAL else None,
            )
            # The client tells by this that the gateway itself has spoken. Metadata is ASCII by gRPC's rules.
            header = request_id.encode("ascii", "backslashreplace").decode()
            self._failing += 1
            try:
                await context.abort(code, sentence, (("x-request-id", header),))
            finally:
                self._failing -= 1
            raise AssertionError("abort raises") from error
        finally:
            self.in_flight -= 1
        duration_s = time.perf_counter() - began
        self._metrics.answered(method, "OK", duration_s)
        if self._log_all:
            log.info("answered", extra=_fields(method, request_id, "OK", duration_s))
        return response

    async def _recommended(self, request: pb.RecommendRequest, request_id: str, remaining_s: float) -> bytes:
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
        lines = self._lines.wire(page.items)
        stages = page.stages
        response = pb.RecommendResponse(
            model=pb.ModelVersion(name=self._router.name, version=page.version),
            degraded=_DEGRADED[page.degraded],
            request_id=request_id,
            stages_ms=pb.StageTimes(
                queue=stages.queue,
                features=stages.features,
                model=stages.model,
                page=stages.page,
                total=(time.perf_counter() - began) * 1000,
            ),
        )
        answer = response.SerializeToString() + lines
        if page.degraded is Degraded.NO:
            self._metrics.page(page.version, stages.queue, stages.page)
            return answer
        reason = page.degraded.value
        self._metrics.degraded(reason)
        if page.degraded is not Degraded.COLD_START:
            log.info("degraded", extra={"request_id": request_id, "reason": reason, "version": page.version})
        return answer

    async def _similar(self, request: pb.SimilarItemsRequest, request_id: str, remaining_s: float) -> bytes:
        item_id = check_id("item_id", request.item_id)
        check_limit(request.limit)
        catalog = self._router.catalog
        categories, excluded = check_filter(request.filter, catalog)
        page = similar_page(catalog, item_key(item_id), request.limit, categories, excluded)
        if page is None:
            raise NotFound(f"item_id: {item_id!r} is not in the catalogue of the serving version")
        response = pb.SimilarItemsResponse(
            model=pb.ModelVersion(name=self._router.name, version=self._router.catalog_version),
            request_id=request_id,
        )
        return response.SerializeToString() + self._lines.wire(page)

    async def _recorded(self, request: pb.RecordEventsRequest, request_id: str, remaining_s: float) -> bytes:
        events = check_events(request.events, self._router.catalog)
        async with asyncio.timeout(remaining_s):
            appended = await self._store.append(events)
        self._metrics.events(appended.recorded, appended.duplicates)
        return pb.RecordEventsResponse(
            recorded=appended.recorded, duplicates=appended.duplicates, request_id=request_id
        ).SerializeToString()

    async def _described(self, request: pb.DescribeUserRequest, request_id: str, remaining_s: float) -> bytes:
        user_id = check_id("user_id", request.user_id)
        async with asyncio.timeout(remaining_s):
            [record] = await self._store.read([user_id])
            excluded = await self._store.is_excluded(user_id)
        if not (len(record.keys) or record.attributes_json or excluded):
            raise NotFound("user_id: nothing is stored of this user")
        response = pb.DescribeUserResponse(
            user_id=user_id,
            attributes=record.attributes,
            excluded_from_training=excluded,
            request_id=request_id,
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
        return response.SerializeToString()

    async def _forgotten(self, request: pb.ForgetUserRequest, request_id: str, remaining_s: float) -> bytes:
        user_id = check_id("user_id", request.user_id)
        async with asyncio.timeout(remaining_s):
            existed = await self._store.forget(user_id)
        return pb.ForgetUserResponse(existed=existed, request_id=request_id).SerializeToString()

    def _known_item(self, key: int) -> CatalogItem:
        # The store keeps keys, not ids: of an item that left the catalogue the key is all there is to show.
        return self._router.catalog.get(key) or CatalogItem(f"key:{key}", "(no longer in the catalogue)", ())


_PROCESS = os.urandom(6).hex()
_CALLS = count()


def _new_id() -> str:
    """An id that no other call has: of this process, and the number of the call in it."""
    return f"{_PROCESS}-{next(_CALLS):x}"


def _fields(method: str, request_id: str, code: str, duration_s: float) -> dict[str, Any]:
    # No user id: logs live longer than ForgetUser may allow.
    return {
        "method": method,
        "request_id": request_id,
        "code": code,
        "duration_ms": round(duration_s * 1000, 3),
    }
