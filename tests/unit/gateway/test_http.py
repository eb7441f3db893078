"""What the HTTP port answers to monitoring, and to those who do not speak HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from features.settings import Settings
from gateway import http, metrics
from tests.ports import free_ports


class Health(HealthServicer):  # type: ignore[misc]  # ships without types
    """Says of each service what it is told; of others NOT_FOUND."""

    def __init__(self, **said: str) -> None:
        self._said = said

    async def Check(self, request: health_pb2.HealthCheckRequest, context: object) -> object:
        if (status := self._said.get(request.service.replace(".", "_"))) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "")  # type: ignore[attr-defined]
        return health_pb2.HealthCheckResponse(status=status)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv(metrics._FOLDER_VARIABLE, str(tmp_path))
    grpc_port, http_port = free_ports(2)
    return Settings(grpc_port=grpc_port, http_port=http_port, state_dir=tmp_path)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        http.serving(settings),
        aiohttp.ClientSession(f"http://127.0.0.1:{settings.http_port}") as session,
    ):
        yield session


async def raw(settings: Settings, sent: bytes) -> bytes:
    """All that is answered to these bytes, until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http_port)
    writer.write(sent)
    try:
        async with asyncio.timeout(20):
            return await reader.read(-1)
    finally:
        writer.close()


async def test_the_parent_lives(client: aiohttp.ClientSession) -> None:
    async with client.get("/healthz") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain")
        assert await answer.read() == b"ok\n"


async def test_metrics_are_in_prometheus_text_format(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "exposition", lambda: b"riptide_requests_total 1.0\n")
    async with client.get("/metrics?name[]=riptide") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await answer.read() == b"riptide_requests_total 1.0\n"


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (None, 503, b'{"gateway": "UNAVAILABLE", "model": "UNAVAILABLE"}\n'),
        ({}, 503, b'{"gateway": "NOT_FOUND", "model": "NOT_FOUND"}\n'),
        ({"riptide_v1_Recommender": "SERVING"}, 200, b'{"gateway": "SERVING", "model": "NOT_FOUND"}\n'),
        (
            {"riptide_v1_Recommender": "SERVING", "riptide_model": "SERVING"},
            200,
            b'{"gateway": "SERVING", "model": "SERVING"}\n',
        ),
        (
            {"riptide_v1_Recommender": "NOT_SERVING", "riptide_model": "SERVING"},
            503,
            b'{"gateway": "NOT_SERVING", "model": "SERVING"}\n',
        ),
    ],
)
async def test_a_worker_answers_or_not(
    client: aiohttp.ClientSession, settings: Settings, said: dict[str, str] | None, status: int, body: bytes
) -> None:
    server = grpc.aio.server()
    if said is not None:
        add_HealthServicer_to_server(Health(**said), server)
        server.add_insecure_port(settings.gateway_target)
        await server.start()
    async with client.get("/readyz") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
        assert await answer.read() == body
    await server.stop(0)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
async def test_other_methods_than_get_are_refused(
    client: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with client.request(method, path) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (405, "text/plain")
        assert await answer.read() == (b"" if method == "HEAD" else b"only GET is answered here\n")


async def test_who_is_lost_is_told_where_to_go(client: aiohttp.ClientSession) -> None:
    async with client.get("/elsewhere") as answer:
        assert answer.status == 404
        assert await answer.read() == b"try /console/, /metrics, /healthz or /readyz\n"


@pytest.mark.parametrize("request_line", ["GET /healthz HTTP/1.0", "GET /healthz HTTP/1.1"])
async def test_a_client_that_asks_for_it_gets_the_connection_closed(
    client: aiohttp.ClientSession, settings: Settings, request_line: str
) -> None:
    said = await raw(settings, f"{request_line}\r\nHost: any\r\nConnection: close\r\n\r\n".encode())
    assert said.startswith(request_line.split()[2].encode() + b" 200 OK\r\n")
    assert said.partition(b"\r\n\r\n")[2] == b"ok\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"garbage\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_ends_its_connection_and_nothing_else(
    client: aiohttp.ClientSession, settings: Settings, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        said = await raw(settings, sent)
    except ConnectionResetError:  # closed while there was more to read
        said = b""
    assert not said or said.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 405"))
    assert caplog.text == ""
    async with client.get("/healthz") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n"])
async def test_a_client_that_does_not_ask_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http, "_IDLE_S", 0.2)
    async with http.serving(settings):
        assert await raw(settings, sent) == b""


async def test_a_client_that_does_not_take_the_answer_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_SEND_S", 0.2)
    body, over, answering = b"x" * (64 << 20), asyncio.Event(), http._answering

    @web.middleware
    async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await answering(request, handler)
        finally:
            over.set()

    monkeypatch.setattr(http, "_answering", told)
    monkeypatch.setattr(metrics, "exposition", lambda: body)
    async with http.serving(settings):
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.http_port, limit=1 << 10)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readexactly(1)
        async with asyncio.timeout(20):
            await over.wait()  # and nothing is taken meanwhile
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(1 << 20):
                taken += len(part)
        assert taken < len(body)
        writer.close()


async def test_its_end_waits_for_no_client(settings: Settings) -> None:
    async with http.serving(settings):
        _, writer = await asyncio.open_connection("127.0.0.1", settings.http_port)
        writer.write(b"POST /riptide.v1.Recommender/Recommend HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        writer.write(b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
        await writer.drain()
        began = time.monotonic()
    assert time.monotonic() - began < 3.5
    writer.close()


async def test_a_port_that_is_taken_is_an_error(settings: Settings) -> None:
    async with http.serving(settings):
        with pytest.raises(OSError, match="in use"):
            async with http.serving(settings):
                pass
