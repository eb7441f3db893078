"""Traced calls at the edge of a gateway: the span of the call itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from opentelemetry.trace import StatusCode

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from features.store import StoreUnavailable
from gateway.errors import InvalidRequest
from gateway.methods import Answer, Call
from gateway.metrics import Metrics
from gateway.servicer import Recommender
from tests.unit.gateway.spans import CALL, NOT_SAMPLED, SAMPLED, Spans


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
