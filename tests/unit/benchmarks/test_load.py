"""Our own generator against servers of this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from benchmarks.ask import ask
from benchmarks.http_connection import HttpConnection
from benchmarks.load import _TIMEOUT_S, closed_loop, open_loop
from benchmarks.observed import looked_at, percentiles_ms
from benchmarks.target import RECOMMEND, recommend, recommend_over_http, record_events
from client.riptide.v1 import recommender_pb2 as pb

PAGE = pb.RecommendResponse(
    items=[pb.RecommendedItem(item_id="i")], stages_ms=pb.StageTimes(model=2.0, total=3.0)
)
FALLBACK = pb.RecommendResponse(
    items=[pb.RecommendedItem(item_id="i")],
    degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE,
    stages_ms=pb.StageTimes(model=0.0, total=1.0),
)


async def test_a_closed_loop_keeps_so_many_calls_in_flight_and_varies_bodies() -> None:
    in_flight, most, seen = 0, 0, set()

    async def call(body: bytes) -> bytes | None:
        nonlocal in_flight, most
        seen.add(body)
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return PAGE.SerializeToString()

    found = await closed_loop([call], [b"a", b"b", b"c"], in_flight=5, seconds=0.05)
    assert most == 5
    assert seen == {b"a", b"b", b"c"}
    assert found.answered >= 5
    assert found.looked_at > 0
    assert found.stages_ms["model"] == 2.0


async def test_failed_calls_are_counted_and_are_no_answers() -> None:
    async def call(body: bytes) -> bytes | None:
        await asyncio.sleep(0)
        return None

    found = await closed_loop([call], [b"a"], in_flight=1, seconds=0.01)
    assert (found.answered, found.looked_at) == (0, 0)
    assert found.failed > 0


async def test_an_open_loop_states_what_it_offered() -> None:
    async def call(body: bytes) -> bytes | None:
        return FALLBACK.SerializeToString()

    found = await open_loop([call], [b"a"], per_s=400.0, seconds=0.25, seed=1)
    assert found.offered_per_s == found.answered / 0.25
    assert found.late_p99_ms is not None
    assert found.degraded == found.looked_at > 0


async def test_failed_calls_of_an_open_loop_count_as_long_as_the_time_out() -> None:
    turn = itertools.count()

    async def call(body: bytes) -> bytes | None:
        return b"" if next(turn) % 2 else None

    found = await open_loop([call], [b"a"], per_s=400.0, seconds=0.25, seed=1)
    assert found.failed > 0
    assert found.p99_ms == 1000 * _TIMEOUT_S


def test_pages_are_looked_at_for_degraded_ones_and_for_the_means_of_stages() -> None:
    found = looked_at([PAGE.SerializeToString(), FALLBACK.SerializeToString(), b""])
    assert (found["looked_at"], found["degraded"]) == (3, 2)  # an empty page is none, either
    assert found["stages_ms"]["total"] == pytest.approx(4 / 3)  # type: ignore[index]  # it is a dict
    assert looked_at([]) == {"looked_at": 0, "degraded": 0, "stages_ms": {}}


def test_percentiles_are_of_milliseconds() -> None:
    assert percentiles_ms([0.001, 0.002, 0.003])[:2] == (pytest.approx(2.0), pytest.approx(2.0))
    assert str(percentiles_ms([])[1]) == "nan"


def test_targets_name_the_users_and_events_that_they_are_made_of() -> None:
    [body] = recommend(1, ["u"], limit=7, time=5).bodies
    assert pb.RecommendRequest.FromString(body) == pb.RecommendRequest(user_id="u", limit=7, time=5)
    assert recommend_over_http(1, ["u"]).bodies == [b'{"user_id": "u", "limit": 10}']
    assert recommend_over_http(1, ["u"], batch_as="many").bodies == [
        b'{"many": [{"user_id": "u", "limit": 10}]}'
    ]
    events = [
        pb.RecordEventsRequest.FromString(body) for body in record_events(1, ["u", "v"], list("abc")).bodies
    ]
    assert [(one.events[0].user_id, one.events[0].item_id) for one in events] == [
        ("u", "a"),
        ("v", "b"),
        ("u", "c"),
    ]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERS = {
    b"whole": HEAD + b'{"items": [ ]}      ',
    b"chunks": CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    b"refused": b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
    b"cut": HEAD + b"short",
}


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    """A server that answers a body with what `ANSWERS` has for it, and hangs up after `cut`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                assert head.startswith("post /recommend http/1.1\r\n")
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                writer.write(ANSWERS[body])
                if body == b"cut":
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_an_http_connection_reads_bodies_of_both_kinds_and_goes_on_after_a_failure(
    http_port: int,
) -> None:
    connection = HttpConnection(http_port, "/recommend", 5.0)
    assert await connection(b"chunks") == b"abcde"
    assert await connection(b"refused") is None
    assert await connection(b"cut") is None
    assert await connection(b"whole") == b'{"items": [ ]}      '
    connection._drop()


async def test_nobody_there_is_a_failed_call() -> None:
    assert await HttpConnection(1, "/recommend", 1.0)(b"whole") is None


def test_asking_gives_the_items_of_a_page_and_none_without_an_answer() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    service, method = RECOMMEND.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: PAGE.SerializeToString())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    target = recommend(port, ["u"])
    assert ask(target, target.bodies[0]) == ["i"]
    server.stop(0).wait()
    assert ask(target, target.bodies[0]) is None
