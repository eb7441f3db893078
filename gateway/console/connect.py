"""Answers in the form of the Connect protocol's unary calls: https://connectrpc.com/docs/protocol.

A response message is answered with 200 and itself in protobuf's JSON mapping, an error with the HTTP status
below and `{"code": "not_found", "message": "…"}`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping

import grpc
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.errors import InvalidRequest

_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

_IN_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(.*?)" at ')
_LONGEST = 300
"""Characters of a sentence that quotes what was sent."""
_SHORT_BODY = 1 << 10
_SHORT_ANSWER = 64 << 10
"""Bytes up to which JSON is read and written on the loop: a request of the page, and some pages of a hundred
items. What is longer takes up to seconds, and the loop is that of the gateway's parent, which also answers
monitoring and watches the workers."""


class ConnectError(Exception):
    """A call that ends with a status other than OK. `str()` is the sentence for the caller."""

    def __init__(self, code: grpc.StatusCode, sentence: str, request_id: str = "") -> None:
        """`request_id`: the one that the gateway has given the call, if it has seen it."""
        super().__init__(sentence)
        self.code = code
        self.request_id = request_id


async def answered(message: Message) -> web.Response:
    """The response for an answer.

    Fields without presence are always in it, zeros too: a page need not know the defaults.
    """
    if message.ByteSize() > _SHORT_ANSWER:
        return json_answer(await asyncio.to_thread(_written, message))
    return json_answer(_written(message))


def _written(message: Message) -> str:
    return json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, ensure_ascii=False, indent=None
    )


def failed(error: ConnectError) -> web.Response:
    """The response for an error."""
    name = "canceled" if error.code is grpc.StatusCode.CANCELLED else error.code.name.lower()
    headers = {"Trailer-X-Request-Id": error.request_id} if error.request_id else {}
    body = json.dumps({"code": name, "message": str(error)}, ensure_ascii=False)
    return json_answer(body, _STATUS[error.code], headers)


def json_answer(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response that is JSON."""
    return web.Response(body=body.encode(), status=status, headers=headers, content_type="application/json")


async def read_message(body: bytes, kind: type[Message]) -> Message:
    """The message in `body`.

    Raises:
        InvalidRequest: it is no JSON object, or has a field that the message has not, or one that is wrong.
    """
    if len(body) > _SHORT_BODY:
        return await asyncio.to_thread(_read, body, kind)
    return _read(body, kind)


def _read(body: bytes, kind: type[Message]) -> Message:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"must be UTF-8, and is not at byte {error.start}") from error
    if not text.lstrip().startswith("{"):
        raise InvalidRequest("body", f"must be a JSON object, a {kind.DESCRIPTOR.full_name}")
    message = kind()
    try:
        json_format.Parse(text, message)
    except json_format.ParseError as error:
        raise _wrong_field(str(error).splitlines()[0]) from error
    return message


def _wrong_field(said: str) -> InvalidRequest:
    """What json_format says, as the gateway says it: the path of the field, then what is wrong."""
    path: list[str] = []
    while inner := _IN_FIELD.match(said):
        path.append(inner[1])
        said = said[inner.end() :]
    if unknown := _NO_FIELD.match(said):
        path.append(unknown[2][:_LONGEST])
        return InvalidRequest(".".join(path), f"is no field of {unknown[1]}")
    return InvalidRequest(".".join(path) or "body", said.rstrip(".")[:_LONGEST])
