"""When the stack may be called ready."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from features.settings import Settings
from stack.errors import StackError

# The gateway serves without a model too, on fallback pages; this name is SERVING only while it has one.
_MODEL = "riptide.model"

_POLL_S = 0.1
_CALL_S = 2.0
# The gateway is on this machine: a proxy for the web, if the environment names one, does not lead there.
_CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]
# What the gateway may take after Triton has the model.
_GATEWAY_S = 15.0


async def until_ready(settings: Settings) -> None:
    """Returns when the gateway serves and says that a model version does; StackError if it takes too long."""
    limit_s = settings.triton_ready_s + _GATEWAY_S
    deadline = time.monotonic() + limit_s
    async with grpc.aio.insecure_channel(settings.gateway_target, options=_CHANNEL_OPTIONS) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            if (
                await http_status(settings, "/readyz") == HTTPStatus.OK
                and await _serving(health, "")
                and await _serving(health, _MODEL)
            ):
                return
            await asyncio.sleep(_POLL_S)
    raise StackError(
        f"not ready after {limit_s:.0f} s (the setting is RIPTIDE_TRITON_READY_S); "
        f"the logs are in {settings.state_dir / 'log'}"
    )


async def http_status(settings: Settings, path: str) -> int | None:
    """The status of a GET from the gateway's HTTP port; None if it does not answer."""
    host = settings.gateway_target.rpartition(":")[0]
    try:
        async with asyncio.timeout(_CALL_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), settings.http_port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return int(status[1]) if len(status) > 1 and status[1].isdigit() else None


async def _serving(health: health_pb2_grpc.HealthStub, service: str) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=_CALL_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
