"""Traces of calls, with an exporter in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1 import trace_pb2 as wire
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from features.catalog import Catalog
from features.record import UserRecord
from features.store import StoreUnavailable
from gateway.errors import InvalidRequest, ModelUnavailable
from gateway.methods import Answer, Call
from gateway.metrics import Metrics
from gateway.page import Degraded
from gateway.servicer import Recommender
from gateway.tracing import Tracing, exported
from tests.unit.gateway.request_path import RequestPath

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (("traceparent", f"00-{TRACE}-{CALLER}-{flags}") for flags in ("01", "00"))
CALL = "riptide.v1.Recommender/Recommend"
A_MICROSECOND = 1000
"""What a float takes off, nanoseconds."""


class Spans:
    """Tracing, and what it has exported."""

    def __init__(self, ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(ratio, SimpleSpanProcessor(self._exporter))

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def names(self) -> list[str]:
        return sorted(span.name for span in self.ended)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.name == name]


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Of its trace, and its own."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def path(catalog: Catalog) -> RequestPath:
    return RequestPath(catalog)


async def test_a_page_has_a_span_for_each_stage_and_triton_is_told_the_models(
    path: RequestPath, spans: Spans
) -> None:
    path.saw("alice", "1")
    before = time.time_ns() - A_MICROSECOND
    trace = spans.tracing.begin(CALL, (SAMPLED, ("tracestate", "shop=alice")))
    await path.page("alice", trace=trace)
    trace.end("OK", is_fault=False)
    assert spans.names() == ["features", "model", "page", "queue", CALL]
    [call] = spans.named(CALL)
    assert call.instrumentation_scope is not None
    assert call.instrumentation_scope.name == "riptide.gateway"
    assert before <= times(call)[0] <= times(call)[1] <= time.time_ns() + A_MICROSECOND
    assert call.kind is SpanKind.SERVER
    assert call.parent is not None
    assert (ids(call)[0], f"{call.parent.span_id:016x}") == (TRACE, CALLER)
    for stage in ("queue", "features", "model", "page"):
        [span] = spans.named(stage)
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id
        first, last = times(span)
        assert first <= last
    [model] = spans.named("model")
    assert model.kind is SpanKind.CLIENT
    assert dict(model.attributes or {}) == {"riptide.version": 7, "riptide.batch_rows": 1}
    assert path.scorer.asked[0]["metadata"] == (("traceparent", f"00-{TRACE}-{ids(model)[1]}-01"),)
    assert "alice" not in "".join(span.to_json() for span in spans.ended)


async def test_the_stages_follow_each_other(path: RequestPath, spans: Spans) -> None:
    path.saw("u", "1")
    await path.page("u", trace=spans.tracing.begin(CALL, ()))
    one_after_the_other = [times(spans.named(stage)[0]) for stage in ("queue", "features", "model", "page")]
    for (_, ended), (began, _) in pairwise(one_after_the_other):
        assert began >= ended - A_MICROSECOND


async def test_calls_that_are_joined_have_traces_of_their_own_and_the_others_none(
    path: RequestPath, spans: Spans
) -> None:
    for user in ("a", "b", "c"):
        path.saw(user, "1")
    first, second = (spans.tracing.begin(CALL, ()) for _ in range(2))
    await asyncio.gather(path.page("a"), path.page("b", trace=first), path.page("c", trace=second))
    assert path.scorer.versions == [7], "one batch"
    assert spans.names() == sorted(["queue", "features", "model", "page"] * 2)
    of_first, of_second = spans.named("model")
    assert ids(of_first)[0] != ids(of_second)[0]
    assert path.scorer.asked[0]["metadata"][0][1].split("-")[1:3] == list(ids(of_first))
    assert [link.context.span_id for link in of_second.links] == [of_first.context.span_id]
    assert not of_first.links


async def test_the_exporter_of_the_sdk_reads_all_of_it(path: RequestPath, spans: Spans) -> None:
    """As they are sent: two joined calls whose model fails. No tracer of the SDK has made these spans."""
    path.saw("u", "1")
    path.scorer.error = ModelUnavailable("told to fail")
    asked, own = spans.tracing.begin(CALL, (SAMPLED,)), spans.tracing.begin(CALL, ())
    await asyncio.gather(path.page("u", trace=asked), path.page("u", trace=own))
    for trace in (asked, own):
        trace.tell(version=7)
        trace.end("INTERNAL", is_fault=True)
        trace.tell(version=8)  # too late
    [of_resource] = encode_spans(spans.ended).resource_spans
    [of_scope] = of_resource.scope_spans
    assert of_scope.scope.name == "riptide.gateway"
    sent = {
        name: [span for span in of_scope.spans if span.name == name]
        for name in ("queue", "model", "page", CALL)
    }
    first, second = sent[CALL]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, CALLER)
    assert first.flags & wire.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK, "it has come from elsewhere"
    assert second.parent_span_id == b""
    assert second.trace_id not in (first.trace_id, bytes(16))
    assert {span.kind for span in sent[CALL]} == {wire.Span.SPAN_KIND_SERVER}
    assert {span.kind for span in sent["model"]} == {wire.Span.SPAN_KIND_CLIENT}
    assert {span.kind for span in sent["queue"] + sent["page"]} == {wire.Span.SPAN_KIND_INTERNAL}
    for stages in (sent["queue"], sent["model"], sent["page"]):
        for call, stage in zip((first, second), stages, strict=True):
            assert (stage.trace_id, stage.parent_span_id) == (call.trace_id, call.span_id)
            assert not stage.flags & wire.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    [link] = sent["model"][1].links
    assert (link.trace_id, link.span_id) == (first.trace_id, sent["model"][0].span_id)
    for span in (first, sent["model"][0]):
        assert span.status.code == wire.Status.STATUS_CODE_ERROR
    assert sent["model"][0].status.message == "ModelUnavailable: told to fail"
    assert {each.key: each.value.string_value or each.value.int_value for each in first.attributes} == {
        "rpc.system.name": "grpc",
        "rpc.method": CALL,
        "rpc.response.status_code": "INTERNAL",
        "riptide.version": 7,
    }


@pytest.mark.parametrize(
    ("metadata", "flags"),
    [((SAMPLED,), "01"), ((("traceparent", f"00-{TRACE}-{CALLER}-03"),), "03"), ((), "03")],
)
async def test_triton_is_told_whether_the_id_is_random(
    path: RequestPath, spans: Spans, metadata: tuple[tuple[str, str], ...], flags: str
) -> None:
    path.saw("u", "1")
    await path.page("u", trace=spans.tracing.begin(CALL, metadata))
    [(_, parent)] = path.scorer.asked[0]["metadata"]
    assert parent.split("-")[3] == flags


async def test_waiting_in_the_queue_takes_as_long_as_it_does(path: RequestPath, spans: Spans) -> None:
    path.saw("u", "1")
    path.scorer.gate.clear()
    before = asyncio.create_task(path.page("u"))
    while not path.scorer.calls:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(path.page("u", trace=spans.tracing.begin(CALL, ())))
    await asyncio.sleep(0.05)
    path.scorer.gate.set()
    await asyncio.gather(before, waiting)
    began, ended = times(spans.named("queue")[0])
    assert ended - began >= 40_000_000


async def test_calls_that_end_without_the_model_have_no_part_in_its_span(
    path: RequestPath, spans: Spans
) -> None:
    path.saw("u", "1")
    cold, warm, gone = (spans.tracing.begin(CALL, ()) for _ in range(3))
    read = path.store.read

    async def hangs_up(user_ids: Sequence[str]) -> list[UserRecord]:
        left.cancel()
        await asyncio.sleep(0)
        return await read(user_ids)

    path.store.read = hangs_up  # type: ignore[method-assign]
    left = asyncio.create_task(path.page("u", trace=gone))
    await asyncio.gather(
        left, path.page("nobody", trace=cold), path.page("u", trace=warm), return_exceptions=True
    )
    assert left.cancelled()
    [model] = spans.named("model")
    assert model.context.trace_id == warm._call.context.trace_id
    assert not model.links


async def test_without_a_trace_triton_is_told_nothing(path: RequestPath) -> None:
    path.saw("u", "1")
    await path.page("u")
    assert path.scorer.asked[0]["metadata"] is None


async def test_a_stage_that_fails_says_so_and_the_fallback_page_is_a_stage(
    path: RequestPath, spans: Spans
) -> None:
    path.saw("u", "1")
    path.scorer.error = ModelUnavailable("told to fail")
    page = await path.page("u", trace=spans.tracing.begin(CALL, ()))
    assert page.degraded is Degraded.MODEL_UNAVAILABLE
    assert spans.names() == ["features", "model", "page", "queue"]
    [model] = spans.named("model")
    assert times(spans.named("page")[0])[0] >= times(model)[1] - A_MICROSECOND
    assert model.status.status_code is StatusCode.ERROR
    assert model.status.description == "ModelUnavailable: told to fail"
    path.scorer.error = ValueError("of alice")
    await path.page("u", trace=spans.tracing.begin(CALL, ()))
    assert spans.named("model")[1].status.description == "ValueError", "it may name a user"
    path.store.fails = True
    await path.page("u", trace=spans.tracing.begin(CALL, ()))
    assert spans.named("features")[2].status.status_code is StatusCode.ERROR
    assert spans.named("features")[2].status.description == "StoreUnavailable: told to fail"


async def test_a_call_that_the_candidate_fails_shows_both_tries(path: RequestPath, spans: Spans) -> None:
    path.saw("u", "1")
    path.router.cohorts["u"] = (8, "canary")
    path.scorer.errors[8] = ModelUnavailable("told to fail")
    await path.page("u", trace=spans.tracing.begin(CALL, ()))
    tries = [
        ((span.attributes or {})["riptide.version"], span.status.status_code) for span in spans.named("model")
    ]
    assert tries == [(8, StatusCode.ERROR), (7, StatusCode.UNSET)]


async def test_waiting_for_the_encoder_is_a_stage(path: RequestPath, spans: Spans) -> None:
    path.router.ready = {n: replace(v, max_lag_s=1000.0) for n, v in path.router.ready.items()}
    path.router.serving = path.router.ready[7]
    running = asyncio.create_task(path.refresher.run_for_good())
    try:
        path.saw("u", "1")
        await path.page("u", trace=spans.tracing.begin(CALL, ()))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [span.status.status_code for span in spans.named("encoder")] == [StatusCode.UNSET]
    in_turn = ["queue", "features", "encoder", "queue", "features", "model", "page"]
    moments = sorted((times(span), span.name) for span in spans.ended)
    assert [name for _, name in moments] == in_turn, "with the batch that it comes back to it is read again"
    for ((_, ended), _), ((began, _), _) in pairwise(moments):
        assert began >= ended - A_MICROSECOND


@pytest.mark.parametrize(
    ("metadata", "never", "always"),
    [
        ((SAMPLED,), True, True),
        ((NOT_SAMPLED,), False, False),
        ((), False, True),
        ((("user-agent", "any"),), False, True),
        ((("traceparent", "no such thing"),), False, True),
        ((("traceparent", ""),), False, True),
        ((("traceparent", f"00-{TRACE}-{CALLER}-02"),), False, False),
        ((("traceparent", f"00-{TRACE}-{CALLER}-03"),), True, True),
        ((("traceparent", f"ff-{TRACE}-{CALLER}-01"),), False, True),
        ((("traceparent", f"00-{'0' * 32}-{CALLER}-01"),), False, True),
        ((("traceparent", f"00-{TRACE}-{CALLER}-01" + "x" * 9000),), False, True),
        ((("traceparent", "garbage-01"),), False, True),
    ],
)
def test_a_caller_decides_and_chance_where_it_does_not(
    metadata: tuple[tuple[str, str], ...], never: bool, always: bool
) -> None:
    assert Spans(1e-300).tracing.takes(metadata) is never
    assert Spans(1.0).tracing.takes(metadata) is always


def test_callers_can_ask_for_so_many_traces_a_second_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = Spans(1e-300).tracing
    for now in (100.0, 101.5):
        monkeypatch.setattr("gateway.tracing.time.monotonic", lambda now=now: now)
        assert [tracing.takes((SAMPLED,)) for _ in range(60)] == [True] * 50 + [False] * 10


def test_chance_takes_the_share_that_is_asked_for() -> None:
    tracing = Spans(0.25).tracing
    taken = sum(tracing.takes(()) for _ in range(10_000))
    assert 2_000 < taken < 3_000


def test_a_parent_that_is_none_begins_a_trace_of_its_own(spans: Spans) -> None:
    spans.tracing.begin(CALL, (("traceparent", "00-zz-yy-01"),)).end("OK", is_fault=False)
    [call] = spans.ended
    assert call.parent is None
    assert int(ids(call)[0], 16)


class Handlers:
    """Methods of which each ends as it is told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls: list[Call] = []

    async def recommend(self, request: Any, call: Call) -> Answer:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        if request.user_id == "slow":
            await asyncio.sleep(60)
        return Answer(pb.RecommendResponse(request_id=call.request_id).SerializeToString(), 7, "stable")

    similar_items = record_events = describe_user = forget_user = recommend


@pytest.fixture
async def served(spans: Spans) -> AsyncIterator[tuple[Handlers, RecommenderStub]]:
    """The edge of a gateway, at a real port; traces are begun by callers alone."""
    spans.tracing._ratio = 1e-300
    handlers, server = Handlers(), grpc.aio.server()
    recommender = Recommender(
        cast(Any, handlers),
        Metrics(),
        max_in_flight=10,
        default_deadline_s=5,
        access_log=False,
        tracing=spans.tracing,
    )
    server.add_generic_rpc_handlers((recommender.handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield handlers, RecommenderStub(channel)
    await server.stop(0)


async def test_a_call_has_a_span_with_its_status_and_its_id(
    served: tuple[Handlers, RecommenderStub], spans: Spans
) -> None:
    handlers, stub = served
    request = pb.RecommendRequest(user_id="alice", request_id="r 1")
    await stub.Recommend(request, metadata=(SAMPLED,))
    await stub.Recommend(request, metadata=(NOT_SAMPLED,))
    await stub.Recommend(request)
    assert [call.trace is not None for call in handlers.calls] == [True, False, False]
    pin = ("riptide-version", "2")
    await stub.ForgetUser(pb.ForgetUserRequest(), metadata=(SAMPLED, pin))
    assert pin in [(name, value) for name, value in handlers.calls[-1].metadata], "traced or not"
    await stub.DescribeUser(pb.DescribeUserRequest(user_id="alice"), metadata=(SAMPLED,))
    first, _, second = spans.ended
    assert second.name == "riptide.v1.Recommender/DescribeUser"
    assert first.name == CALL
    assert dict(first.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": CALL,
        "rpc.response.status_code": "OK",
        "riptide.request_id": "r 1",
    }
    assert first.status.status_code is StatusCode.UNSET
    assert first.resource.attributes["service.name"] == "riptide-gateway"
    assert first.resource.attributes["telemetry.sdk.name"] == "opentelemetry"
    assert first.resource.attributes["service.instance.id"], "workers and machines are told apart"
    assert "alice" not in first.to_json()


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (InvalidRequest("limit", "must be from 1"), "INVALID_ARGUMENT", StatusCode.UNSET),
        (StoreUnavailable("no answer of alice"), "UNAVAILABLE", StatusCode.ERROR),
        (ValueError("of alice"), "INTERNAL", StatusCode.ERROR),
        (TimeoutError(), "DEADLINE_EXCEEDED", StatusCode.ERROR),
    ],
)
async def test_a_call_that_fails_says_whose_fault_it_is(
    served: tuple[Handlers, RecommenderStub],
    spans: Spans,
    error: Exception,
    code: str,
    status: StatusCode,
) -> None:
    handlers, stub = served
    handlers.error = error
    request = pb.RecommendRequest(user_id="alice", request_id="r 1")
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Recommend(request, metadata=(SAMPLED,))
    [call] = spans.ended
    assert (call.attributes or {})["riptide.request_id"] == "r 1"
    assert (call.attributes or {})["rpc.response.status_code"] == code
    assert call.status.status_code is status
    assert "alice" not in call.to_json()


async def test_a_call_whose_caller_goes_ends_its_span(
    served: tuple[Handlers, RecommenderStub], spans: Spans
) -> None:
    _, stub = served
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Recommend(pb.RecommendRequest(user_id="slow"), metadata=(SAMPLED,), timeout=0.2)
    async with asyncio.timeout(20):
        while not spans.ended:
            await asyncio.sleep(0.01)
    assert (spans.ended[0].attributes or {})["rpc.response.status_code"] == "CANCELLED"


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    spans = Spans()
    spans.tracing.begin(CALL, ()).end("OK", is_fault=False)
    attributes = spans.ended[0].resource.attributes
    assert attributes["service.name"] == "shop"
    assert attributes["deployment.environment.name"] == "test"


def test_a_ratio_of_0_traces_nothing() -> None:
    assert exported(0, "http://localhost:4318/v1/traces") is None


def test_a_collector_that_hangs_keeps_no_worker_from_ending() -> None:
    may_end, asked = threading.Event(), threading.Event()

    class Hanging(SpanProcessor):
        def shutdown(self) -> None:
            asked.set()
            may_end.wait()

    Tracing(1.0, Hanging()).close(0.05)
    assert asked.wait(20)
    may_end.set()
