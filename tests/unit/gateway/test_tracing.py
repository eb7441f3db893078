"""Traces of calls, with an exporter in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1 import trace_pb2 as wire
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from features.catalog import Catalog
from features.record import UserRecord
from features.settings import Settings
from gateway.errors import ModelUnavailable
from gateway.page import Degraded
from gateway.tracing import Tracing, exported
from tests.unit.gateway.request_path import RequestPath
from tests.unit.gateway.spans import (
    A_MICROSECOND,
    CALL,
    CALLER,
    NOT_SAMPLED,
    SAMPLED,
    TRACE,
    Spans,
    ids,
    times,
)


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


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    spans = Spans()
    spans.tracing.begin(CALL, ()).end("OK", is_fault=False)
    attributes = spans.ended[0].resource.attributes
    assert attributes["service.name"] == "shop"
    assert attributes["deployment.environment.name"] == "test"


def test_a_ratio_of_0_traces_nothing_and_neither_does_an_opentelemetry_that_is_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert exported(Settings(trace_ratio=0)) is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert exported(Settings(trace_ratio=1)) is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    tracing = exported(Settings(trace_ratio=1))
    assert tracing is not None
    tracing.close(20)


def test_a_collector_that_hangs_keeps_no_worker_from_ending() -> None:
    may_end, asked = threading.Event(), threading.Event()

    class Hanging(SpanProcessor):
        def shutdown(self) -> None:
            asked.set()
            may_end.wait()

    Tracing(1.0, Hanging()).close(0.05)
    assert asked.wait(20)
    may_end.set()
