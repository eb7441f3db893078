"""Calls as JSON: what is passed on, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1 import rollouts_pb2
from client.riptide.v1.recommender_pb2_grpc import add_RecommenderServicer_to_server
from features.settings import Settings
from gateway.console import connect, forward
from gateway.console.connect import read_message
from gateway.errors import InvalidRequest
from tests.unit.gateway.console.conftest import Post
from tests.unit.gateway.console.fakes import FakeDriver, FakeRecommender

RECOMMEND = "/riptide.v1.Recommender/Recommend"


async def test_a_request_arrives_as_the_message_that_its_json_says(
    recommender: FakeRecommender, post: Post
) -> None:
    event = {"userId": "é", "item_id": "5", "type": "EVENT_TYPE_CLICK", "time": "1700000000", "weight": 2}
    status, answer = await post("Recommender/RecordEvents", {"events": [event]})
    assert (status, answer["recorded"]) == (200, 1)
    sent = pb.Event(user_id="é", item_id="5", type=pb.EVENT_TYPE_CLICK, time=1700000000, weight=2)
    assert recommender.requests == [pb.RecordEventsRequest(events=[sent])]


async def test_an_answer_has_names_of_enums_64_bit_numbers_as_strings_and_zeros(
    recommender: FakeRecommender, post: Post
) -> None:
    recommender.page = pb.RecommendResponse(
        items=[pb.RecommendedItem(item_id="5", title="Amélie <b>", rank=1)],
        model=pb.ModelVersion(name="recommender", version=2**53 + 1),
        degraded=pb.DEGRADED_REASON_COLD_START,
    )
    assert await post("Recommender/Recommend", {"userId": "196", "limit": 1}) == (
        200,
        {
            "items": [{"itemId": "5", "score": 0, "rank": 1, "title": "Amélie <b>", "categories": []}],
            "model": {"name": "recommender", "version": "9007199254740993"},
            "degraded": "DEGRADED_REASON_COLD_START",
            "requestId": "",
            "cohort": "",
        },
    )


@pytest.mark.parametrize("method", ["Recommend", "SimilarItems", "RecordEvents", "DescribeUser"])
async def test_a_method_that_the_console_needs_is_offered(
    recommender: FakeRecommender, post: Post, method: str
) -> None:
    assert (await post(f"Recommender/{method}", {}))[0] == 200


@pytest.mark.parametrize(
    "method", ["Recommender/ForgetUser", "Recommender/recommend", "Rollouts/Start", "Rollouts/SetTraffic"]
)
async def test_no_other_method_is(
    recommender: FakeRecommender, driver: FakeDriver, post: Post, method: str
) -> None:
    status, answer = await post(method, {})
    assert (status, answer["code"]) == (501, "unimplemented")
    assert recommender.requests == driver.requests == []


@pytest.mark.parametrize(
    ("code", "name", "status"),
    [
        (grpc.StatusCode.CANCELLED, "canceled", 499),
        (grpc.StatusCode.UNKNOWN, "unknown", 500),
        (grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument", 400),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded", 504),
        (grpc.StatusCode.NOT_FOUND, "not_found", 404),
        (grpc.StatusCode.ALREADY_EXISTS, "already_exists", 409),
        (grpc.StatusCode.PERMISSION_DENIED, "permission_denied", 403),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "resource_exhausted", 429),
        (grpc.StatusCode.FAILED_PRECONDITION, "failed_precondition", 400),
        (grpc.StatusCode.ABORTED, "aborted", 409),
        (grpc.StatusCode.OUT_OF_RANGE, "out_of_range", 400),
        (grpc.StatusCode.UNIMPLEMENTED, "unimplemented", 501),
        (grpc.StatusCode.INTERNAL, "internal", 500),
        (grpc.StatusCode.UNAVAILABLE, "unavailable", 503),
        (grpc.StatusCode.DATA_LOSS, "data_loss", 500),
        (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", 401),
    ],
)
async def test_a_status_is_answered_as_connect_says_with_the_gateways_sentence_and_request_id(
    recommender: FakeRecommender, http: aiohttp.ClientSession, code: grpc.StatusCode, name: str, status: int
) -> None:
    recommender.refusal = code, "limit: “0” is wrong"
    async with http.post(RECOMMEND, json={}) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        assert await answer.json() == {"code": name, "message": "limit: “0” is wrong"}
        assert answer.headers["Trailer-X-Request-Id"] == "r-1"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("", "body: must be a JSON object"),
        ("[]", "body: must be a JSON object"),
        ("null", "body: must be a JSON object"),
        ('{"userId":', "body: Failed to load JSON"),
        (b'{"userId": "\xff"}', "body: must be UTF-8"),
        ('{"usr": "196"}', "usr: is no field of riptide.v1.RecommendRequest"),
        ('{"filter": {"category": "x"}}', "filter.category: is no field of riptide.v1.Filter"),
        ('{"limit": "ten"}', "limit: "),
        ('{"limit": 1.5}', "limit: "),
        ('{"limit": 99999999999}', "limit: "),
        ('{"userId": 196}', "userId: "),
        ('{"filter": {"categories": "Comedy"}}', "filter.categories: "),
        ('{"userId": "\\ud800"}', "userId: "),
        ('{"userId": "1", "userId": "2"}', "body: Failed to load JSON: "),
        ('{"filter": ' * 5000, "body: "),
    ],
)
async def test_what_is_no_request_is_refused_with_the_name_of_the_field(
    recommender: FakeRecommender, http: aiohttp.ClientSession, body: str | bytes, sentence: str
) -> None:
    async with http.post(RECOMMEND, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 400
        said = await answer.json()
    assert said["code"] == "invalid_argument"
    assert said["message"].startswith(sentence)
    assert "\n" not in said["message"]
    assert recommender.requests == []


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["userId", "limit", "filter"]), inner),
)


@given(anything.map(json.dumps).map(str.encode) | st.binary())
def test_whatever_is_sent_is_a_message_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(asyncio.run(read_message(body, pb.RecommendRequest)), pb.RecommendRequest)


async def test_a_refusal_quotes_little_of_what_was_sent() -> None:
    for body in ('{"limit": "%s"}', '{"%s": 1}', '{"filter": {"categories": "%s"}}'):
        with pytest.raises(InvalidRequest) as refusal:
            await read_message((body % ("x" * 100_000)).encode(), pb.RecommendRequest)
        assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/proto", 415),
    ],
)
async def test_only_what_is_declared_json_is_read(
    recommender: FakeRecommender, http: aiohttp.ClientSession, kind: str, status: int
) -> None:
    async with http.post(RECOMMEND, data=b"{}", headers={"Content-Type": kind}) as answer:
        assert answer.status == status
        if status == 415:
            assert await answer.text() == "Content-Type: must be application/json\n"
    assert len(recommender.requests) == (status == 200)


async def test_a_body_that_is_compressed_is_refused(post: Post) -> None:
    status, answer = await post("Recommender/Recommend", {}, content_encoding="gzip")
    assert (status, answer["code"]) == (501, "unimplemented")
    assert answer["message"] == "Content-Encoding: must be identity, not 'gzip'"


@pytest.mark.parametrize("says_how_long", [True, False])
async def test_a_body_over_64_kibibytes_is_refused(http: aiohttp.ClientSession, says_how_long: bool) -> None:
    body = json.dumps({"userId": "x" * forward.MOST_BYTES}).encode()

    async def parts() -> AsyncIterator[bytes]:
        yield body

    sent = body if says_how_long else parts()
    async with http.post(RECOMMEND, data=sent, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 429
        said = await answer.json()
    assert said == {"code": "resource_exhausted", "message": "body: must have at most 65536 bytes"}


async def test_a_body_of_64_kibibytes_is_passed_on(recommender: FakeRecommender, post: Post) -> None:
    message = {"userId": "x" * (forward.MOST_BYTES - len(json.dumps({"userId": ""})))}
    assert (await post("Recommender/Recommend", message))[0] == 200
    assert recommender.requests == [pb.RecommendRequest(user_id=message["userId"])]


@pytest.mark.parametrize(("length", "on_the_loop"), [(100, True), (2000, False)])
async def test_a_long_body_is_read_off_the_loop(
    recommender: FakeRecommender, post: Post, monkeypatch: pytest.MonkeyPatch, length: int, on_the_loop: bool
) -> None:
    threads, parse = [], connect.json_format.Parse

    def spied(text: str, message: pb.RecommendRequest) -> object:
        threads.append(threading.current_thread())
        return parse(text, message)

    monkeypatch.setattr(connect.json_format, "Parse", spied)
    assert (await post("Recommender/Recommend", {"userId": "x" * length}))[0] == 200
    assert [thread is threading.current_thread() for thread in threads] == [on_the_loop]


@pytest.mark.parametrize(("length", "on_the_loop"), [(1000, True), (100_000, False), (5 << 20, False)])
async def test_a_long_answer_is_written_off_the_loop_and_may_be_longer_than_grpc_expects(
    recommender: FakeRecommender, post: Post, monkeypatch: pytest.MonkeyPatch, length: int, on_the_loop: bool
) -> None:
    threads, write = [], connect.json_format.MessageToJson

    def spied(message: pb.RecommendResponse, **options: bool) -> str:
        threads.append(threading.current_thread())
        return write(message, **options)

    monkeypatch.setattr(connect.json_format, "MessageToJson", spied)
    recommender.page = pb.RecommendResponse(cohort="x" * length)
    status, answer = await post("Recommender/Recommend", {})
    assert (status, answer["cohort"]) == (200, "x" * length)
    assert [thread is threading.current_thread() for thread in threads] == [on_the_loop]


async def test_a_body_that_does_not_come_is_not_waited_for(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_BODY_S", 0.1)

    async def parts() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with http.post(RECOMMEND, data=parts(), headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 504
        assert (await answer.json())["message"] == "body: must come within 0.1 seconds"


async def test_a_call_has_the_time_that_its_header_says_or_the_gateways_default(
    recommender: FakeRecommender, post: Post, settings: Settings
) -> None:
    await post("Recommender/Recommend", {}, Connect_Timeout_Ms="60000")
    await post("Recommender/Recommend", {})
    asked, usual = recommender.remaining_s
    # gRPC rounds up, to a few digits, what it says on the wire.
    assert 30 < asked < 61
    assert 0 < usual < settings.default_deadline_ms / 1000 + 1


async def test_a_call_past_its_time_is_answered_so(recommender: FakeRecommender, post: Post) -> None:
    recommender.hangs = True
    status, answer = await post("Recommender/Recommend", {}, Connect_Timeout_Ms="50")
    assert (status, answer["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", "12345678901", ""])
async def test_a_time_that_is_none_is_refused(recommender: FakeRecommender, post: Post, given: str) -> None:
    status, answer = await post("Recommender/Recommend", {}, Connect_Timeout_Ms=given)
    assert (status, answer["code"]) == (400, "invalid_argument")
    assert str(answer["message"]).startswith("Connect-Timeout-Ms: must be milliseconds")
    assert recommender.requests == []


async def test_another_version_of_the_protocol_is_refused(recommender: FakeRecommender, post: Post) -> None:
    assert (await post("Recommender/Recommend", {}, Connect_Protocol_Version="1"))[0] == 200
    status, answer = await post("Recommender/Recommend", {}, Connect_Protocol_Version="2")
    assert (status, answer["message"]) == (400, "Connect-Protocol-Version: must be 1, not '2'")


async def test_that_nobody_answers_is_said_and_passes_when_somebody_does(
    post: Post, settings: Settings
) -> None:
    absent = f"no worker of the gateway answers at {settings.gateway_target}"
    assert await post("Recommender/Recommend", {}) == (503, {"code": "unavailable", "message": absent})
    server = grpc.aio.server()
    add_RecommenderServicer_to_server(FakeRecommender(), server)
    server.add_insecure_port(settings.gateway_target)
    await server.start()
    async with asyncio.timeout(20):
        while (await post("Recommender/Recommend", {}))[0] != 200:
            await asyncio.sleep(0.05)
    await server.stop(0)


async def test_an_operators_token_goes_to_the_driver(driver: FakeDriver, post: Post) -> None:
    status, answer = await post("Rollouts/Promote", {"version": "3"}, riptide_operator_token="key")
    assert status == 200
    assert answer["rollout"]["stable"] == "3"  # type: ignore[index]
    await post("Rollouts/RollBack", {"reason": "sales are down"}, riptide_operator_token="key")
    assert driver.requests == [
        rollouts_pb2.PromoteRequest(version=3),
        rollouts_pb2.RollBackRequest(reason="sales are down"),
    ]
    assert [told["riptide-operator-token"] for told in driver.metadata] == ["key", "key"]


async def test_a_caller_without_a_token_gets_none_of_the_gateways(driver: FakeDriver, post: Post) -> None:
    await post("Rollouts/Promote", {})
    assert "riptide-operator-token" not in driver.metadata[0]


async def test_no_header_of_a_caller_goes_to_the_recommender(
    recommender: FakeRecommender, post: Post
) -> None:
    await post("Recommender/Recommend", {}, riptide_operator_token="key", riptide_version="3", Cookie="a=b")
    assert recommender.metadata[0].keys() == {"user-agent"}


async def test_a_token_that_cannot_be_one_is_refused(driver: FakeDriver, post: Post) -> None:
    status, answer = await post("Rollouts/Promote", {}, riptide_operator_token="clé")
    assert (status, answer["message"]) == (400, "riptide-operator-token: must be printable ASCII")
    assert driver.requests == []


async def test_a_fault_of_the_console_is_logged_and_not_told(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forward, "read_message", lambda body, kind: 1 / 0)
    async with http.post(RECOMMEND, json={"userId": "196"}) as answer:
        assert answer.status == 500
        assert await answer.text() == "internal error; the gateway's log has the details\n"
    assert "ZeroDivisionError" in caplog.text
    assert "196" not in caplog.text
