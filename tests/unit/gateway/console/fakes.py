"""What the console calls: the gateway's workers and the driver of rollouts, as the test tells them to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1 import rollouts_pb2
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer
from client.riptide.v1.rollouts_pb2_grpc import RolloutsServicer


class FakeRecommender(RecommenderServicer):
    """Answers every call with `page` or an empty message, or refuses it."""

    def __init__(self) -> None:
        self.page = pb.RecommendResponse()
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.remaining_s: list[float] = []
        self.hangs = False

    async def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        await self._take(request, context)
        return self.page

    async def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        await self._take(request, context)
        return pb.RecordEventsResponse(recorded=len(request.events))

    async def SimilarItems(self, request: Any, context: Any) -> pb.SimilarItemsResponse:
        await self._take(request, context)
        return pb.SimilarItemsResponse()

    async def DescribeUser(self, request: Any, context: Any) -> pb.DescribeUserResponse:
        await self._take(request, context)
        return pb.DescribeUserResponse(user_id=request.user_id)

    async def _take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining_s.append(context.time_remaining())
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusal is not None:
            await context.abort(*self.refusal, (("x-request-id", "r-1"),))


class FakeDriver(RolloutsServicer):
    """Says `state` on every stream, first at once and then with each `speak`."""

    def __init__(self) -> None:
        self.state = rollouts_pb2.RolloutsWatchResponse(rollout=rollouts_pb2.Rollout(stable=1))
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.silent = False
        self.opened = 0
        self.open = 0
        self.metadata: list[dict[str, Any]] = []
        self.requests: list[Any] = []
        self._spoken = 0
        self._speaking = asyncio.Condition()

    async def speak(self) -> None:
        async with self._speaking:
            self._spoken += 1
            self._speaking.notify_all()

    async def Promote(self, request: Any, context: Any) -> rollouts_pb2.PromoteResponse:
        await self._take(request, context)
        return rollouts_pb2.PromoteResponse(rollout=rollouts_pb2.Rollout(stable=request.version))

    async def RollBack(self, request: Any, context: Any) -> rollouts_pb2.RollBackResponse:
        await self._take(request, context)
        return rollouts_pb2.RollBackResponse()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[rollouts_pb2.RolloutsWatchResponse]:
        self.opened += 1
        self.open += 1
        try:
            await self._take(request, context)
            while True:
                if self.silent:
                    await asyncio.Event().wait()
                said = self._spoken
                yield self.state
                async with self._speaking:
                    while self._spoken == said:
                        await self._speaking.wait()
        finally:
            self.open -= 1

    async def _take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refusal is not None:
            await context.abort(*self.refusal)
