"""The edge: deadlines, request ids, and what is logged; the calls themselves are tested end to end."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from client.riptide.v1 import recommender_pb2 as pb
from features.store import StoreUnavailable
from gateway.errors import InvalidRequest, NotAnOperator, NotFound, NotLoaded
from gateway.methods import Answer, Call, Metadata
from gateway.metrics import Metrics
from gateway.servicer import Recommender


class Aborted(Exception):
    """What gRPC raises to end a call."""


class FakeContext:
    """A call with this much time left."""

    def __init__(self, remaining_s: float | None, may_end: asyncio.Event | None = None) -> None:
        self._remaining_s = remaining_s
        self._may_end = may_end
        self.aborted: tuple[grpc.StatusCode, str, dict[str, str]] | None = None

    def time_remaining(self) -> float | None:
        return self._remaining_s

    async def abort(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self.aborted = code, details, dict(metadata)
        if self._may_end is not None:
            await self._may_end.wait()
        raise Aborted


class Handler:
    """Remembers how much time it was given; fails if it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.remaining_s: list[float] = []
        self.ids: list[str] = []
        self._error = error

    async def __call__(self, request: Any, call: Call) -> Answer:
        self.remaining_s.append(call.remaining_s)
        self.ids.append(call.request_id)
        if self._error is not None:
            raise self._error
        return Answer(b"answer", 4, "canary")


@pytest.fixture
def recommender() -> Recommender:
    return Recommender(cast(Any, None), Metrics(), max_in_flight=2, default_deadline_s=1.5, access_log=True)


async def answer(
    recommender: Recommender, handler: Handler, context: FakeContext, request: Any = None
) -> bytes:
    request = request or pb.RecommendRequest(user_id="alice@example.com")
    return await recommender._answer("Recommend", handler, request, cast(Any, context))


@pytest.mark.parametrize(("remaining_s", "given_s"), [(None, 1.5), (0.25, 0.25), (60.0, 60.0)])
async def test_a_call_has_its_own_time_or_the_default(
    recommender: Recommender, remaining_s: float | None, given_s: float
) -> None:
    handler = Handler()
    assert await answer(recommender, handler, FakeContext(remaining_s)) == b"answer"
    assert handler.remaining_s == [given_s]


async def test_a_call_whose_time_is_up_is_not_worked_on(recommender: Recommender) -> None:
    handler, context = Handler(), FakeContext(0)
    with pytest.raises(Aborted):
        await answer(recommender, handler, context)
    assert handler.remaining_s == []
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert recommender.in_flight == 0


async def test_a_request_id_is_the_callers_or_a_new_one_each_time(recommender: Recommender) -> None:
    handler = Handler()
    await answer(recommender, handler, FakeContext(1), pb.RecommendRequest(request_id="mine"))
    for request in (pb.RecommendRequest(), pb.DescribeUserRequest(), pb.ForgetUserRequest()):
        await answer(recommender, handler, FakeContext(1), request)
    assert handler.ids[0] == "mine"
    assert len(set(handler.ids)) == 4
    assert all(handler.ids)


@pytest.mark.parametrize("bad", ["a\nb", "x" * 20_000])
async def test_a_bad_request_id_is_neither_sent_back_nor_logged(
    recommender: Recommender, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    handler, context = Handler(), FakeContext(1)
    with caplog.at_level(logging.INFO), pytest.raises(Aborted):
        await answer(recommender, handler, context, pb.RecommendRequest(request_id=bad))
    assert context.aborted is not None
    code, sentence, metadata = context.aborted
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("request_id: ")
    assert len(metadata["x-request-id"]) < 64
    assert all(vars(record)["request_id"] == metadata["x-request-id"] for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (NotFound("user_id: nothing"), grpc.StatusCode.NOT_FOUND, "user_id: nothing"),
        (NotAnOperator("token: wrong"), grpc.StatusCode.UNAUTHENTICATED, "token: wrong"),
        (NotLoaded("version 9 is not"), grpc.StatusCode.FAILED_PRECONDITION, "version 9 is not"),
        (InvalidRequest("limit", "must be"), grpc.StatusCode.INVALID_ARGUMENT, "limit: must be"),
        (
            StoreUnavailable("MDB_PANIC"),
            grpc.StatusCode.UNAVAILABLE,
            "the feature store does not answer; try again",
        ),
        (
            KeyError("secret"),
            grpc.StatusCode.INTERNAL,
            "internal error; the gateway's log has the details of such",
        ),
    ],
)
async def test_the_caller_is_told_what_concerns_it_and_the_log_the_rest(
    recommender: Recommender,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: grpc.StatusCode,
    sentence: str,
) -> None:
    context = FakeContext(1)
    with caplog.at_level(logging.INFO), pytest.raises(Aborted):
        await answer(recommender, Handler(error), context)
    assert context.aborted is not None
    assert context.aborted[0] is code
    assert context.aborted[1].startswith(sentence)
    assert str(error) in caplog.text
    assert "alice" not in caplog.text


async def test_the_id_of_a_refused_call_travels_in_ascii_whatever_the_caller_chose(
    recommender: Recommender,
) -> None:
    context = FakeContext(1)
    with pytest.raises(Aborted):
        await answer(recommender, Handler(NotFound("")), context, pb.RecommendRequest(request_id="Nr. 1 ü"))
    assert context.aborted is not None
    assert context.aborted[2] == {"x-request-id": "Nr. 1 \\xfc"}


async def test_a_call_too_many_is_refused_and_counted_and_the_next_one_taken(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(recommender._metrics, "answered", lambda method, code, _: counted.append(code))
    gate = asyncio.Event()

    async def wait(request: Any, call: Call) -> Answer:
        await gate.wait()
        return Answer(b"answer")

    async def call(context: FakeContext) -> bytes:
        return await recommender._answer("Recommend", wait, pb.RecommendRequest(), cast(Any, context))

    waiting = [asyncio.create_task(call(FakeContext(1))) for _ in range(2)]
    while recommender.in_flight < 2:
        await asyncio.sleep(0)
    refused = FakeContext(1)
    with pytest.raises(Aborted):
        await asyncio.wait_for(call(refused), 10)
    assert refused.aborted is not None
    assert refused.aborted[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than 2 calls" in refused.aborted[1]
    gate.set()
    assert await asyncio.gather(*waiting, call(FakeContext(1))) == [b"answer"] * 3
    assert counted == ["RESOURCE_EXHAUSTED", "OK", "OK", "OK"]


async def test_calls_that_are_being_refused_take_no_room(recommender: Recommender) -> None:
    sent = asyncio.Event()
    refused = [
        asyncio.create_task(answer(recommender, Handler(KeyError("k")), FakeContext(1, sent)))
        for _ in range(10)
    ]
    while recommender.in_flight < 10:
        await asyncio.sleep(0)
    ok = FakeContext(1)
    await answer(recommender, Handler(), ok)
    assert ok.aborted is None
    sent.set()
    await asyncio.wait(refused)
    assert recommender.in_flight == 0
    assert recommender._failing == 0


async def test_with_the_access_log_on_a_call_is_logged_without_its_user(
    recommender: Recommender, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await answer(recommender, Handler(), FakeContext(1))
    [record] = caplog.records
    fields = vars(record)
    assert (fields["method"], fields["code"]) == ("Recommend", "OK")
    assert (fields["version"], fields["cohort"]) == (4, "canary")
    assert "alice" not in str(vars(record))


class Details(grpc.HandlerCallDetails):  # type: ignore[misc]  # ships without types
    """A call as gRPC describes it to whoever finds its handler."""

    def __init__(self, method: str, *metadata: tuple[str, str]) -> None:
        self.method, self.invocation_metadata = method, metadata or None


async def test_a_method_is_told_of_the_metadata_of_calls_that_ask_for_a_version_alone() -> None:
    seen: list[Metadata] = []

    class Seeing(Handler):
        async def __call__(self, request: Any, call: Call) -> Answer:
            seen.append(call.metadata)
            return await super().__call__(request, call)

    methods = SimpleNamespace(
        **dict.fromkeys(
            ("recommend", "similar_items", "record_events", "describe_user", "forget_user"), Seeing()
        )
    )
    recommender = Recommender(
        cast(Any, methods), Metrics(), max_in_flight=2, default_deadline_s=1.5, access_log=False
    )
    pinned = (("user-agent", "test"), ("riptide-version", "2"))
    path = "/riptide.v1.Recommender/Recommend"
    for metadata in ((), pinned[:1], pinned):
        handler = recommender.handlers.service(Details(path, *metadata))
        context = FakeContext(1)
        context.invocation_metadata = lambda metadata=metadata: metadata  # type: ignore[attr-defined]
        request = handler.request_deserializer(pb.RecommendRequest(user_id="u").SerializeToString())
        assert await handler.unary_unary(request, context) == b"answer"
    assert seen == [(), (), pinned]
    assert recommender.handlers.service(Details("/riptide.v1.Recommender/NoSuch")) is None
    assert recommender.handlers.service(Details("/other.Service/Recommend", *pinned)) is None
