"""The gateway's HTTP port: `/metrics`, `/healthz` (the parent lives) and `/readyz` (a worker answers)."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from features.settings import Settings
from gateway import metrics
from gateway.servicer import SERVICE
from gateway.worker import MODEL_SERVICE

_TIMEOUT_S = 2.0
_MAX_HEADER_BYTES = 16 << 10


async def serve(settings: Settings) -> asyncio.Server:
    """Starts answering on the HTTP port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S * 2):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = await _answer(settings, head.split(b"\r\n", 1)[0].decode("latin-1"))
                writer.write(
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the other side is slow, gone, or does not speak HTTP
        finally:
            writer.close()

    return await asyncio.start_server(connected, settings.host, settings.http_port, limit=_MAX_HEADER_BYTES)


async def _answer(settings: Settings, request_line: str) -> tuple[HTTPStatus, str, bytes]:
    method, _, rest = request_line.partition(" ")
    path = rest.split(" ")[0].split("?")[0]
    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET is answered here\n"
    if path == "/metrics":
        return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", metrics.exposition()
    if path == "/healthz":
        return HTTPStatus.OK, "text/plain", b"ok\n"
    if path == "/readyz":
        gateway, model = await _health(settings)
        status = HTTPStatus.OK if gateway == "SERVING" else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", json.dumps({"gateway": gateway, "model": model}).encode() + b"\n"
    return HTTPStatus.NOT_FOUND, "text/plain", b"try /metrics, /healthz or /readyz\n"


async def _health(settings: Settings) -> list[str]:
    target = f"{settings.host}:{settings.grpc_port}"
    async with grpc.aio.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = HealthStub(channel).Check
        answers: list[str] = []
        for service in (SERVICE.full_name, MODEL_SERVICE):
            try:
                answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_S)
                answers.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
            except grpc.aio.AioRpcError as error:
                answers.append(error.code().name)
        return answers
