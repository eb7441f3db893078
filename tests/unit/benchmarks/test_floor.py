"""The floor whose calls are joined for Triton. A gRPC server stands for Triton."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import grpc
import pytest

from benchmarks import floor
from benchmarks.target import MODEL_INFER

REQUESTS = [b"1", b"22", b"333"]
NO_CONTEXT = cast("grpc.aio.ServicerContext[bytes, bytes]", None)


class Triton:
    """Notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.refuses = b""

    async def infer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """Answers after a moment, in which others may join."""
        if request == self.refuses:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such input")
        self.asked.append(request)
        await asyncio.sleep(0.02)
        return b""


@pytest.fixture
async def served() -> AsyncIterator[tuple[Triton, grpc.aio.Channel]]:
    triton, server = Triton(), grpc.aio.server()
    service, method = MODEL_INFER.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(triton.infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield triton, channel
    await server.stop(0)


async def test_calls_are_joined_to_requests_of_as_many_rows_and_all_are_answered(
    served: tuple[Triton, grpc.aio.Channel],
) -> None:
    triton, channel = served
    method = await floor.joined(channel, REQUESTS, b"a page")
    assert triton.asked == REQUESTS  # each was tried
    triton.asked.clear()
    assert await asyncio.gather(*(method(b"", NO_CONTEXT) for _ in range(7))) == [b"a page"] * 7
    assert sum(len(request) for request in triton.asked) == 7
    assert len(triton.asked) <= 4


async def test_a_floor_whose_triton_refuses_a_request_is_not_measured(
    served: tuple[Triton, grpc.aio.Channel],
) -> None:
    triton, channel = served
    triton.refuses = b"22"
    with pytest.raises(grpc.aio.AioRpcError, match="no such input"):
        await floor.joined(channel, REQUESTS, b"a page")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--triton", "1"], "go together"),
        (["--bodies", "file"], "go together"),
        (["--triton", "1", "--bodies", "file", "--workers", "2"], "for one worker"),
    ],
)
def test_what_would_measure_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    monkeypatch.setattr("sys.argv", ["floor", "--port", "1", *words])
    with pytest.raises(SystemExit):
        floor.main()
    assert says in capsys.readouterr().err
