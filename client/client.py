"""An async client of the gateway.

    async with Client("127.0.0.1:50051") as client:
        page = await client.recommend("196", limit=10, explain=True)

Answers are the messages of `recommender.proto` themselves: they are typed, and documented there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc.aio

from client.errors import from_rpc
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub

# Every call of the service may be repeated: three only read, ForgetUser deletes, and an event is known by
# (user, item, type, time), where `record_events` fills the time. So gRPC itself retries (gRFC A6: exponential
# back-off with jitter, within the caller's deadline, and only where no part of an answer has come): on
# UNAVAILABLE, and on CANCELLED, which a stopping server answers to calls that it has not begun. On no others:
# a call past its deadline has no time left, and a refused one would be refused again.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "riptide.v1.Recommender"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    }
)
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.service_config", _SERVICE_CONFIG),
    # `http_proxy` is for the web: a proxy seldom lets gRPC through, and never knows this loopback address.
    ("grpc.enable_http_proxy", 0),
    # By default a lost connection is tried again after a second: longer than all retries of a call together.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # By its name a pause, but it is how long an attempt to connect may take: enough for a gateway that is far
    # away or busy, and less than a call has, which else could not tell that nobody was reached.
    ("grpc.min_reconnect_backoff_ms", 500),
]


class Client:
    """One connection to one gateway; safe to share between the tasks of an event loop.

    Every method raises an error of `client.errors`, and takes `timeout_s`: seconds until DeadlineExceeded,
    retries included; by default the one given here.
    """

    def __init__(self, address: str, *, timeout_s: float = 1.0) -> None:
        """`address` is `host:port`. Nothing is sent until the first call."""
        self.address = address
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = RecommenderStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def recommend(
        self,
        user_id: str,
        *,
        limit: int = 10,
        categories: Sequence[str] = (),
        exclude_item_ids: Sequence[str] = (),
        include_seen: bool = False,
        explain: bool = False,
        surface: str = "",
        diversity: float = 0.0,
        time: int = 0,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> pb.RecommendResponse:
        """The best items for a user, best first. `degraded` says if it is not the model's answer.

        `diversity` is from 0, relevance alone, to 1; `time` is Unix seconds, 0 for now.
        """
        request = pb.RecommendRequest(
            user_id=user_id,
            limit=limit,
            filter=pb.Filter(
                categories=categories, exclude_item_ids=exclude_item_ids, include_seen=include_seen
            ),
            explain=explain,
            surface=surface,
            diversity=diversity,
            time=time,
            request_id=request_id,
        )
        answer: pb.RecommendResponse = await self._call(self._stub.Recommend, request, timeout_s)
        return answer

    async def similar_items(
        self,
        item_id: str,
        *,
        limit: int = 10,
        categories: Sequence[str] = (),
        exclude_item_ids: Sequence[str] = (),
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> pb.SimilarItemsResponse:
        """The nearest items of an item, nearest first; `NotFound` if the serving version does not know it."""
        request = pb.SimilarItemsRequest(
            item_id=item_id,
            limit=limit,
            filter=pb.Filter(categories=categories, exclude_item_ids=exclude_item_ids),
            request_id=request_id,
        )
        answer: pb.SimilarItemsResponse = await self._call(self._stub.SimilarItems, request, timeout_s)
        return answer

    async def record_events(
        self, events: Iterable[pb.Event], *, request_id: str = "", timeout_s: float | None = None
    ) -> pb.RecordEventsResponse:
        """Stores events; they are durable when this returns. All or none.

        An event without a time is given the present one here, not by the gateway, so that a repeated try
        stores it once. For the same reason a caller who repeats a failed call should set the times.
        """
        request = pb.RecordEventsRequest(events=events, request_id=request_id)
        now = int(time.time())
        for event in request.events:  # copies: the caller's events stay as they are
            event.time = event.time or now
        answer: pb.RecordEventsResponse = await self._call(self._stub.RecordEvents, request, timeout_s)
        return answer

    async def describe_user(
        self, user_id: str, *, request_id: str = "", timeout_s: float | None = None
    ) -> pb.DescribeUserResponse:
        """All that is stored of a user; `NotFound` if nothing is."""
        request = pb.DescribeUserRequest(user_id=user_id, request_id=request_id)
        answer: pb.DescribeUserResponse = await self._call(self._stub.DescribeUser, request, timeout_s)
        return answer

    async def forget_user(
        self, user_id: str, *, request_id: str = "", timeout_s: float | None = None
    ) -> pb.ForgetUserResponse:
        """Deletes all that is stored of a user, and leaves the id out of future trainings.

        If an answer was lost and the try repeated, `existed` is false although this call deleted the record.
        """
        request = pb.ForgetUserRequest(user_id=user_id, request_id=request_id)
        answer: pb.ForgetUserResponse = await self._call(self._stub.ForgetUser, request, timeout_s)
        return answer

    async def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        """Any: grpc_tools generates stubs without annotations; the callers above give the types back."""
        try:
            return await method(request, timeout=self._timeout_s if timeout_s is None else timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
