"""The methods of the contract: check, call, convert. The limits are in `validation`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import grpc
import numpy as np

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import CatalogItem
from features.schema import item_key
from features.store import FeatureStore
from gateway import wire
from gateway.errors import NotFound
from gateway.exposures import Exposures
from gateway.metrics import Metrics
from gateway.page import Degraded, PageRequest, similar_page
from gateway.pin import Pins
from gateway.recommend import Recommend
from gateway.refresher import Refresher
from gateway.routing import Router
from gateway.tracing import Stage, Trace
from gateway.validation import (
    check_diversity,
    check_events,
    check_filter,
    check_id,
    check_limit,
    check_surface,
    check_time,
)

# What part of the caller's time may be spent waiting for the model: the rest brings the fallback home.
_MODEL_SHARE = 0.75

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Collection[tuple[str, str | bytes]]

log = logging.getLogger("riptide.gateway.calls")


class Call(NamedTuple):
    """What there is to know of a call beside its request."""

    request_id: str
    remaining_s: float
    """Until its deadline."""
    metadata: Metadata
    """Of the caller; empty if nothing in it is of interest."""
    trace: Trace | None = None
    """If it is traced."""

    def stage(self, name: str) -> Stage:
        """A stage of the call, for the block."""
        return Stage(name, (self.trace,))


class Answer(NamedTuple):
    """What a call ends with, if it ends well."""

    wire: bytes
    """The response in wire format: see `wire`."""
    version: int | None = None
    """The model version that it is of, if it is of one."""
    cohort: str | None = None
    """That the call belongs to, if it belongs to one."""


@dataclass(frozen=True, eq=False)
class Methods:
    """What the service does. Each method raises the errors that `errors` has a status for."""

    router: Router
    store: FeatureStore
    pages: Recommend
    exposures: Exposures
    refresher: Refresher
    pins: Pins
    metrics: Metrics
    model_timeout_s: float
    lines: wire.Lines

    async def recommend(self, request: pb.RecommendRequest, call: Call) -> Answer:
        began = time.perf_counter()
        user_id, limit = check_id("user_id", request.user_id), check_limit(request.limit)
        categories: tuple[str, ...] = ()
        excluded: tuple[int, ...] = ()
        include_seen = False
        if request.HasField("filter"):
            categories, excluded = check_filter(request.filter, self.router.catalog)
            include_seen = request.filter.include_seen
        page = await self.pages.page(
            PageRequest(
                user_id,
                limit,
                categories,
                excluded,
                include_seen,
                request.explain,
                # What is not given needs no check.
                surface=(surface := request.surface) and check_surface(surface),
                diversity=(diversity := request.diversity) and check_diversity(diversity),
                time=(asked_at := request.time) and check_time("time", asked_at, int(time.time())),
                request_id=call.request_id,
                came=began,
                trace=call.trace,
            ),
            min(self.model_timeout_s, call.remaining_s * _MODEL_SHARE),
            self.pins.asked(call.metadata) if call.metadata else None,
        )
        degraded = page.degraded
        outcome = "FULL" if degraded is Degraded.NO else degraded.value
        self.metrics.page(page.version, page.cohort, outcome)
        if call.trace is not None:
            call.trace.tell(version=page.version, cohort=page.cohort, outcome=outcome)
        if degraded is not Degraded.NO and degraded is not Degraded.COLD_START:
            said = {"reason": degraded.value, "version": page.version, "cohort": page.cohort}
            log.info("degraded", extra={"request_id": call.request_id, **said})
        return Answer(page.wire, page.version, page.cohort)

    async def similar_items(self, request: pb.SimilarItemsRequest, call: Call) -> Answer:
        item_id = check_id("item_id", request.item_id)
        check_limit(request.limit)
        catalog = self.router.catalog
        categories, excluded = check_filter(request.filter, catalog)
        page = similar_page(catalog, item_key(item_id), request.limit, categories, excluded)
        if page is None:
            raise NotFound(f"item_id: {item_id!r} is not in the catalogue of the serving version")
        version = self.router.catalog_version
        response = pb.SimilarItemsResponse(
            model=pb.ModelVersion(name=self.router.name, version=version), request_id=call.request_id
        )
        return Answer(response.SerializeToString() + self.lines.of(catalog).wire(page), version)

    async def record_events(self, request: pb.RecordEventsRequest, call: Call) -> Answer:
        events = check_events(request.events, self.router.catalogs)
        try:
            with call.stage("store"):
                async with asyncio.timeout(call.remaining_s):
                    appended = await self.store.append(events)
        finally:
            # Also if the time is up: the store may have taken them all the same.
            self.refresher.note({event.user_id for event in events})
        self.metrics.events(appended.recorded, appended.duplicates)
        response = pb.RecordEventsResponse(
            recorded=appended.recorded, duplicates=appended.duplicates, request_id=call.request_id
        )
        return Answer(response.SerializeToString())

    async def describe_user(self, request: pb.DescribeUserRequest, call: Call) -> Answer:
        user_id = check_id("user_id", request.user_id)
        with call.stage("store"):
            async with asyncio.timeout(call.remaining_s):
                [record] = await self.store.read([user_id])
                excluded = await self.store.is_excluded(user_id)
                exposures = await self.store.control.exposures_of(user_id)
        if not (len(record.keys) or record.attributes_json or excluded or exposures):
            raise NotFound("user_id: nothing is stored of this user")
        response = pb.DescribeUserResponse(
            user_id=user_id,
            attributes=record.attributes,
            excluded_from_training=excluded,
            request_id=call.request_id,
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
        for exposure in sorted(exposures, key=lambda exposure: exposure.at):
            response.exposures.add(arm=exposure.arm, time=exposure.at)
        return Answer(response.SerializeToString())

    async def forget_user(self, request: pb.ForgetUserRequest, call: Call) -> Answer:
        user_id = check_id("user_id", request.user_id)
        self.exposures.forget(user_id)
        self.refresher.forget(user_id)
        with call.stage("store"):
            async with asyncio.timeout(call.remaining_s):
                existed = await self.store.forget(user_id)
        return Answer(pb.ForgetUserResponse(existed=existed, request_id=call.request_id).SerializeToString())

    def _known_item(self, key: int) -> CatalogItem:
        # The store keeps keys, not ids: of an item that left the catalogue the key is all there is to show.
        known = (item for catalog in self.router.catalogs if (item := catalog.get(key)) is not None)
        return next(known, CatalogItem(f"key:{key}", "(no longer in the catalogue)", ()))
