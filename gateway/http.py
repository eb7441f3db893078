"""The gateway's HTTP port: `/metrics`, `/healthz` (the parent lives), `/readyz` (a worker does), console."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from aiohttp import web
from aiohttp.typedefs import Handler
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from features.settings import Settings
from gateway import metrics
from gateway.console.app import add_console
from gateway.console.forward import MOST_BYTES
from gateway.servicer import SERVICE
from gateway.worker import MODEL_SERVICE

_TIMEOUT_S = 2.0
_SEND_S = 4.0
_IDLE_S = 10.0
"""How long a connection may take to ask, for the first time or again."""
_CLOSE_S = 1.0

log = logging.getLogger("riptide.gateway.http")
# aiohttp has a traceback to tell of whoever connects and does not speak HTTP.
_strangers = logging.getLogger("riptide.gateway.http.strangers")
_strangers.disabled = True


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Answers on the HTTP port until the block ends.

    Raises:
        OSError: it cannot listen there.
    """
    app = web.Application(middlewares=[_answering], client_max_size=MOST_BYTES)

    async def ready(request: web.Request) -> web.Response:
        gateway, model = await _health(settings)
        return web.Response(
            status=200 if gateway == "SERVING" else 503,
            body=json.dumps({"gateway": gateway, "model": model}).encode() + b"\n",
            content_type="application/json",
        )

    for_monitoring = {"/metrics": _metrics, "/healthz": _alive, "/readyz": ready}
    for path, handler in for_monitoring.items():
        app.router.add_get(path, handler, allow_head=False)
    add_console(app, settings, for_monitoring)
    runner = web.AppRunner(
        app,
        access_log=None,  # paths would be harmless; a line for each is not wanted
        logger=_strangers,
        auto_decompress=False,
        keepalive_timeout=_IDLE_S,
        lingering_time=_CLOSE_S,
        shutdown_timeout=_CLOSE_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.http_port).start()
        yield
    finally:
        await runner.cleanup()


async def _metrics(request: web.Request) -> web.Response:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return web.Response(body=metrics.exposition(), headers={"Content-Type": kind})


async def _alive(request: web.Request) -> web.Response:
    return web.Response(body=b"ok\n", content_type="text/plain")


@web.middleware
async def _answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Says what went wrong in plain text, and sends what there is to say while the other side takes it."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _refused(error)
    except Exception:
        log.exception("an HTTP request failed")
        response = _plain(500, "internal error; the gateway's log has the details")
    response.headers["Server"] = "riptide"
    try:
        async with asyncio.timeout(_SEND_S):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _refused(error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        response = _plain(error.status, f"only {' and '.join(allowed)} is answered here")
    elif isinstance(error, web.HTTPNotFound) and error.text == f"{error.status}: {error.reason}":
        response = _plain(error.status, "try /console/, /metrics, /healthz or /readyz")
    else:
        response = _plain(error.status, (error.text or error.reason).rstrip("\n"))
    given = {name: value for name, value in error.headers.items() if not name.startswith("Content-Type")}
    response.headers.update(given)
    return response


def _plain(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, body=sentence.encode() + b"\n", content_type="text/plain")


async def _health(settings: Settings) -> list[str]:
    async with grpc.aio.insecure_channel(
        settings.gateway_target, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        check = HealthStub(channel).Check
        answers: list[str] = []
        for service in (SERVICE.full_name, MODEL_SERVICE):
            try:
                answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=_TIMEOUT_S)
                answers.append(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
            except grpc.aio.AioRpcError as error:
                answers.append(error.code().name)
        return answers
