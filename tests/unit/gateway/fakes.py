"""A store, a Triton's metadata and a scorer that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer

from features.catalog import Catalog
from features.record import EMPTY_RECORD, CachedAnswer, Event, UserRecord, with_answer, with_events
from features.schema import EventType, item_key, item_keys
from features.store import Appended, StoreUnavailable
from features.traffic import PINNED, STABLE
from gateway.fit import Tensor
from gateway.routing import Choice
from gateway.scorer import Scores
from gateway.versions import ServingVersion
from tests.unit.fake_control import FakeControl

WIDTH, ANSWERED = 2, 6


def encoding(version: int, history: Sequence[int]) -> NDArray[np.float32]:
    """The vector of a history (item keys), which tells versions and histories apart."""
    return np.array([version, hash(tuple(history)) % 10_007], np.float32)


class FakeStore:
    """Records in a dictionary; `fails` makes every read fail.

    Answers that are put are only remembered, unless it `keeps` them with the records as real stores do.
    """

    def __init__(self) -> None:
        self.records: dict[str, UserRecord] = {}
        self.reads: list[list[str]] = []
        self.answers: dict[str, CachedAnswer] = {}
        self.control = FakeControl()
        self.fails = False
        self.keeps = False

    def saw(self, user: str, *items: str) -> UserRecord:
        """Gives a user a history."""
        events = [Event(user, item, EventType.VIEW, n + 1) for n, item in enumerate(items)]
        self.records[user] = with_events(EMPTY_RECORD, events, 2000).record
        return self.records[user]

    async def read(self, user_ids: Sequence[str]) -> list[UserRecord]:
        if self.fails:
            raise StoreUnavailable("told to fail")
        self.reads.append(list(user_ids))
        return [self.records.get(user, EMPTY_RECORD) for user in user_ids]

    async def put_answers(self, answers: Mapping[str, CachedAnswer]) -> None:
        self.answers.update(answers)
        if self.keeps:
            for user, answer in answers.items():
                if user in self.records:
                    self.records[user] = with_answer(self.records[user], answer)

    async def append(self, events: Sequence[Event]) -> Appended:
        recorded = 0
        for event in events:
            merged = with_events(self.records.get(event.user_id, EMPTY_RECORD), [event], 2000)
            self.records[event.user_id] = merged.record
            recorded += merged.recorded
        return Appended(recorded, len(events) - recorded)

    async def is_excluded(self, user_id: str) -> bool:
        return False

    async def forget(self, user_id: str) -> bool:
        return self.records.pop(user_id, None) is not None


class FakeScorer:
    """Answers items of the catalogue, from item 10 on; remembers what it was asked.

    `error` fails all calls, `errors` those of a version; `gate` holds all, `gates` those of a version. Its
    encoder answers `encoding` of each row; `encoder_error` fails it, `encoder_gate` holds it.
    """

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.calls: list[dict[str, NDArray[Any]]] = []
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.errors: dict[int, Exception] = {}
        self.first: dict[int, int] = {}
        """The first item that a version answers, if not 10."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.gates: dict[int, asyncio.Event] = {}
        self.encoded: list[tuple[int, list[list[int]]]] = []
        """What the encoder was asked: version, and the history of each row."""
        self.encoder_error: Exception | None = None
        self.encoder_gate = asyncio.Event()
        self.encoder_gate.set()

    async def encode(
        self, version: ServingVersion, inputs: dict[str, NDArray[Any]], *, timeout_s: float
    ) -> NDArray[np.float32]:
        histories = [[key for key in row if key] for row in inputs["history_keys"].tolist()]
        self.encoded.append((version.version, histories))
        await self.encoder_gate.wait()
        if self.encoder_error is not None:
            raise self.encoder_error
        return np.stack([encoding(version.version, history) for history in histories])

    async def score(self, version: ServingVersion, inputs: dict[str, NDArray[Any]], **asked: Any) -> Scores:
        self.versions.append(version.version)
        self.calls.append(inputs)
        self.asked.append(asked)
        await self.gates.get(version.version, self.gate).wait()
        error = self.errors.get(version.version, self.error)
        if error is not None:
            raise error
        rows = len(next(iter(inputs.values())))
        first = self.first.get(version.version, 10)
        keys = np.tile(item_keys(str(n) for n in range(first, first + ANSWERED)), (rows, 1))
        scores = np.tile(np.arange(ANSWERED, 0, -1, dtype=np.float32), (rows, 1))
        reasons = np.full((rows, ANSWERED), item_key("1")) if asked["reasons"] else None
        vectors = np.full((rows, WIDTH), 0.5, np.float32) if asked["vectors"] else None
        return Scores(keys, scores, reasons, vectors)


class FakeRouter:
    """Has the versions that it is given, the first one stable; `cohorts` sends users elsewhere."""

    name = "recommender"

    def __init__(self, *versions: ServingVersion) -> None:
        self.ready = {version.version: version for version in versions}
        self.refused: dict[int, str] = {}
        self.serving: ServingVersion | None = versions[0]
        self.shadowed: tuple[ServingVersion, float] | None = None
        self.catalog = versions[0].catalog
        self.catalogs: Sequence[Catalog] = [self.catalog]
        self.catalog_version = versions[0].version
        self.catalog_consumes = versions[0].consumes
        self.revision = 0
        self.cohorts: dict[str, tuple[int, str]] = {}

    def choose(self, user_id: str, pinned: int | None = None) -> Choice:
        if pinned is not None:
            return Choice(self.ready.get(pinned), PINNED)
        stable = self.serving.version if self.serving else 0
        meant, cohort = self.cohorts.get(user_id, (stable, STABLE))
        return Choice(self.ready.get(meant) or self.serving, cohort)

    def gone(self, version: ServingVersion, reason: str) -> None:
        self.ready.pop(version.version, None)
        if version is self.serving:
            self.serving = self.ready[max(self.ready)] if self.ready else None


def serving_version(number: int, catalog: Catalog) -> ServingVersion:
    """A version of an earlier release, which takes no attributes, types, surface or diversity."""
    inputs = {
        "history_keys": Tensor("INT64", 4),
        "history_times": Tensor("INT64", 4),
        "request_time": Tensor("INT64", 1),
        "user_vector": Tensor("FP32", WIDTH),
        "user_vector_fresh": Tensor("INT32", 1),
        "exclude_keys": Tensor("INT64", 0),
        "allowed_categories": Tensor("BOOL", 3),
    }
    return ServingVersion("recommender", number, inputs, catalog)


def ranking_version(
    number: int,
    catalog: Catalog,
    *attributes: str,
    consumes: Iterable[EventType] | None = None,
    counts: Iterable[EventType] | None = None,
) -> ServingVersion:
    """A version that takes all inputs, and these attributes."""

    def mask(types: Iterable[EventType] | None) -> NDArray[np.bool_] | None:
        return None if types is None else np.isin(np.arange(256), [int(kind) for kind in types])

    inputs = serving_version(number, catalog).inputs | {
        "history_types": Tensor("INT32", 4),
        "user_features": Tensor("INT64", max(1, len(attributes))),
        "surface": Tensor("INT64", 1),
        "diversity": Tensor("FP32", 1),
    }
    return ServingVersion("recommender", number, inputs, catalog, attributes, mask(consumes), mask(counts))


INPUTS = {"history_keys": ("INT64", -1), "exclude_keys": ("INT64", -1)}
OUTPUTS = ["item_keys", "scores", "reason_keys", "user_vector"]


class FakeTriton(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated without types
    """Metadata of the versions it is told to have ready."""

    def __init__(self) -> None:
        self.versions: dict[str, tuple[dict[str, tuple[str, int]], list[str]]] = {}
        self.fails_for = ""
        """A version that goes between being listed and being looked at."""
        self.target = ""

    def has(self, *versions: int) -> None:
        """These are ready, and as they should be."""
        self.versions = {str(version): (INPUTS, OUTPUTS) for version in versions}

    async def ModelMetadata(
        self, request: triton.ModelMetadataRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> triton.ModelMetadataResponse:
        if not self.versions or (self.fails_for and request.version == self.fails_for):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no version is available")
        inputs, outputs = self.versions[request.version or max(self.versions)]
        tensor = triton.ModelMetadataResponse.TensorMetadata
        return triton.ModelMetadataResponse(
            name=request.name,
            versions=list(self.versions),
            inputs=[tensor(name=n, datatype=kind, shape=[-1, width]) for n, (kind, width) in inputs.items()],
            outputs=[tensor(name=n, datatype="INT64", shape=[-1, 10]) for n in outputs],
        )

    async def ModelReady(
        self, request: triton.ModelReadyRequest, context: object
    ) -> triton.ModelReadyResponse:
        return triton.ModelReadyResponse(ready=request.version in self.versions)
