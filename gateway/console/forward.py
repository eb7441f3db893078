"""Calls as JSON, passed on as gRPC: the methods that the console needs, of the gateway and of rollouts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from gateway.console.connect import ConnectError, answered, read_message
from gateway.errors import InvalidRequest

MOST_BYTES = 64 << 10
"""Of a body. gRPC takes 1 MiB; as JSON, that is seconds of work for whoever likes to send it."""

_BODY_S = 4.0
_TIMEOUT = "Connect-Timeout-Ms"
_VERSION = "Connect-Protocol-Version"
_REQUEST_ID = "x-request-id"
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # A proxy seldom lets gRPC through, and never knows an address of this machine.
    ("grpc.enable_http_proxy", 0),
    # What was restarted is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # For one attempt to connect, whatever the name: a busy machine may need more than 50 ms.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A history may have 60,000 events, which is more than gRPC's 4 MiB.
    ("grpc.max_receive_message_length", -1),
]

Handler = Callable[[web.Request], Awaitable[web.Response]]


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel to a server of this deployment; it connects with the first call."""
    return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)


@dataclass(frozen=True, eq=False)
class Backend:
    """A gRPC service, and what of it is offered."""

    service: ServiceDescriptor
    methods: Sequence[str]
    channel: grpc.aio.Channel
    timeout_s: float
    """For a call that comes without one."""
    absent: str
    """The sentence for when nobody answers."""
    headers: Sequence[str] = ()
    """The headers that are passed on, as metadata; no others are."""

    def error(self, error: grpc.aio.AioRpcError) -> ConnectError:
        """What the caller gets for what gRPC raised."""
        code = error.code()
        # gRPC says UNAVAILABLE too if it finds nobody, in words about sockets.
        if code is grpc.StatusCode.UNAVAILABLE and not self._connected:
            return ConnectError(code, self.absent)
        request_id = dict(error.trailing_metadata() or ()).get(_REQUEST_ID, "")
        return ConnectError(code, error.details() or code.name, str(request_id))

    @property
    def _connected(self) -> bool:
        return bool(self.channel.get_state() is grpc.ChannelConnectivity.READY)


def add_calls(app: web.Application, backend: Backend) -> None:
    """Offers the methods of a backend below its service's name."""
    service = backend.service
    for name in backend.methods:
        app.router.add_post(
            f"/{service.full_name}/{name}", _forwarding(backend, service.methods_by_name[name])
        )

    async def unknown(request: web.Request) -> web.Response:
        offered = ", ".join(backend.methods)
        raise ConnectError(
            grpc.StatusCode.UNIMPLEMENTED, f"{service.full_name} is offered here with {offered} only"
        )

    app.router.add_post(f"/{service.full_name}/{{method:.*}}", unknown)


def _forwarding(backend: Backend, method: MethodDescriptor) -> Handler:
    asked = message_factory.GetMessageClass(method.input_type)
    call = backend.channel.unary_unary(
        f"/{backend.service.full_name}/{method.name}",
        request_serializer=asked.SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )

    async def forward(request: web.Request) -> web.Response:
        try:
            timeout_s = _timeout_s(request, backend.timeout_s)
            message = await read_message(await _body(request), asked)
        except InvalidRequest as error:
            raise ConnectError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        metadata = tuple(
            (name, _metadata_value(name, request.headers[name]))
            for name in backend.headers
            if name in request.headers
        )
        try:
            return await answered(await call(message, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            raise backend.error(error) from error

    return forward


def _timeout_s(request: web.Request, default_s: float) -> float:
    version = request.headers.get(_VERSION, "1")
    if version != "1":
        raise InvalidRequest(_VERSION, f"must be 1, not {version[:20]!r}")
    given = request.headers.get(_TIMEOUT)
    if given is None:
        return default_s
    if not re.fullmatch("[0-9]{1,10}", given) or not int(given):
        raise InvalidRequest(_TIMEOUT, f"must be milliseconds from 1 to 9999999999, not {given[:20]!r}")
    return int(given) / 1000


async def _body(request: web.Request) -> bytes:
    coding = request.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise ConnectError(
            grpc.StatusCode.UNIMPLEMENTED, f"Content-Encoding: must be identity, not {coding[:20]!r}"
        )
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise ConnectError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"body: must have at most {MOST_BYTES} bytes"
        ) from error
    except TimeoutError as error:
        raise ConnectError(
            grpc.StatusCode.DEADLINE_EXCEEDED, f"body: must come within {_BODY_S:g} seconds"
        ) from error


def _metadata_value(name: str, value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    # gRPC would refuse to send it, in words of its own.
    raise ConnectError(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: must be printable ASCII")
