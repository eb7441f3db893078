"""The async client against a real gRPC server whose answers the test chooses."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from client.client import Client
from client.errors import (
    DeadlineExceeded,
    Exhausted,
    NotFound,
    RecommenderError,
    RequestRefused,
    ServerFault,
    Unavailable,
    Unreachable,
)
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer, add_RecommenderServicer_to_server
from tests.far_away import far_away


class Gateway(RecommenderServicer):
    """Fails the first calls with the statuses given, then answers; keeps every request that came."""

    def __init__(self) -> None:
        self.failures: list[grpc.StatusCode] = []
        self.requests: list[Any] = []
        self.remaining_s: list[float] = []
        self.metadata: tuple[tuple[str, str], ...] = (("x-request-id", "r1"),)
        self.address = ""

    async def _answer(self, request: Any, context: Any, answer: Any) -> Any:
        self.requests.append(request)
        self.remaining_s.append(context.time_remaining())
        if self.failures:
            await context.abort(self.failures.pop(0), "limit: 0 is not from 1 to 100", self.metadata)
        return answer

    async def Recommend(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, pb.RecommendResponse(request_id="answered"))

    async def SimilarItems(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, pb.SimilarItemsResponse())

    async def RecordEvents(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, pb.RecordEventsResponse(recorded=len(request.events)))

    async def DescribeUser(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, pb.DescribeUserResponse())

    async def ForgetUser(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context, pb.ForgetUserResponse(existed=True))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    server = grpc.aio.server()
    gateway = Gateway()
    add_RecommenderServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield gateway
    await server.stop(None)


async def test_a_gateway_that_takes_a_while_to_greet_is_waited_for(gateway: Gateway) -> None:
    async with far_away(gateway.address, 0.15) as way, Client(way.address, timeout_s=20) as client:
        await client.recommend("u")
    assert way.connections == 1


async def test_who_never_greets_is_no_gateway(gateway: Gateway) -> None:
    async with far_away(gateway.address, math.inf) as way, Client(way.address, timeout_s=20) as client:
        with pytest.raises(Unreachable):
            await client.recommend("u")
    assert way.connections >= 1


async def test_every_call_carries_a_deadline(gateway: Gateway) -> None:
    async with Client(gateway.address, timeout_s=7) as client:
        await client.recommend("u")
        await client.similar_items("i")
        await client.record_events([pb.Event(user_id="u", item_id="i", type=pb.EVENT_TYPE_CLICK)])
        await client.describe_user("u")
        await client.forget_user("u", timeout_s=3)
    assert [round(remaining) for remaining in gateway.remaining_s] == [7, 7, 7, 7, 3]


async def test_a_proxy_in_the_environment_is_not_asked(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with Client(gateway.address, timeout_s=7) as client:
        assert (await client.recommend("u")).request_id == "answered"


async def test_a_call_is_repeated_while_the_gateway_is_unavailable(gateway: Gateway) -> None:
    gateway.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    async with Client(gateway.address, timeout_s=20) as client:
        answer = await client.recommend("u", limit=3)
    assert answer.request_id == "answered"
    assert len(gateway.requests) == 3
    assert gateway.requests[0] == gateway.requests[2]


async def test_a_repeated_recording_sends_the_very_same_events(gateway: Gateway) -> None:
    gateway.failures = [grpc.StatusCode.UNAVAILABLE]
    event = pb.Event(user_id="u", item_id="i", type=pb.EVENT_TYPE_PLAY)
    before = int(time.time())
    async with Client(gateway.address, timeout_s=20) as client:
        await client.record_events([event])
    first, second = gateway.requests
    assert first == second
    assert before <= first.events[0].time <= int(time.time())
    assert event.time == 0, "the caller's event was changed"


async def test_a_time_that_the_caller_set_is_kept(gateway: Gateway) -> None:
    async with Client(gateway.address, timeout_s=20) as client:
        await client.record_events([pb.Event(user_id="u", item_id="i", type=pb.EVENT_TYPE_PLAY, time=5)])
    assert gateway.requests[0].events[0].time == 5


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, RequestRefused),
        (grpc.StatusCode.PERMISSION_DENIED, RequestRefused),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Exhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, ServerFault),
        (grpc.StatusCode.UNKNOWN, ServerFault),
    ],
)
async def test_other_failures_are_not_repeated_and_keep_status_and_sentence(
    gateway: Gateway, status: grpc.StatusCode, kind: type[RecommenderError]
) -> None:
    gateway.failures = [status]
    async with Client(gateway.address, timeout_s=20) as client:
        with pytest.raises(RecommenderError) as caught:
            await client.recommend("u", limit=0)
    assert type(caught.value) is kind
    assert caught.value.status is status
    assert str(caught.value) == "limit: 0 is not from 1 to 100"
    assert len(gateway.requests) == 1


async def test_a_gateway_that_stays_unavailable_is_given_up_and_is_not_called_unreachable(
    gateway: Gateway,
) -> None:
    gateway.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    async with Client(gateway.address, timeout_s=20) as client:
        with pytest.raises(Unavailable) as caught:
            await client.describe_user("u")
    assert type(caught.value) is Unavailable
    assert len(gateway.requests) == 4


async def test_what_is_unavailable_before_the_gateway_is_unreachable(gateway: Gateway) -> None:
    gateway.failures = [grpc.StatusCode.UNAVAILABLE] * 9
    gateway.metadata = ()  # as a proxy answers that finds no gateway
    async with Client(gateway.address, timeout_s=20) as client:
        with pytest.raises(Unreachable):
            await client.describe_user("u")


async def test_nothing_at_the_address_is_unreachable() -> None:
    async with Client("127.0.0.1:1", timeout_s=20) as client:
        with pytest.raises(Unreachable):
            await client.recommend("u")


async def test_filters_travel(gateway: Gateway) -> None:
    async with Client(gateway.address, timeout_s=20) as client:
        await client.recommend(
            "ü",
            limit=7,
            categories=["War"],
            exclude_item_ids=["9"],
            include_seen=True,
            explain=True,
            request_id="r",
        )
    assert gateway.requests[0] == pb.RecommendRequest(
        user_id="ü",
        limit=7,
        filter=pb.Filter(categories=["War"], exclude_item_ids=["9"], include_seen=True),
        explain=True,
        request_id="r",
    )
