from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import grpc
import pytest

from client.riptide.v1.recommender_pb2_grpc import add_RecommenderServicer_to_server
from client.riptide.v1.rollouts_pb2_grpc import add_RolloutsServicer_to_server
from features.settings import Settings
from gateway import metrics
from gateway.http import serving
from tests.ports import free_ports
from tests.unit.gateway.console.fakes import FakeDriver, FakeRecommender


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a gateway on free ports, with nothing in its folders."""
    monkeypatch.setenv(metrics._FOLDER_VARIABLE, str(tmp_path))
    grpc_port, operator_port, http_port = free_ports(3)
    return Settings(
        grpc_port=grpc_port,
        operator_port=operator_port,
        http_port=http_port,
        state_dir=tmp_path,
        store=f"lmdb:{tmp_path / 'store'}",
    )


@pytest.fixture
async def recommender(settings: Settings) -> AsyncIterator[FakeRecommender]:
    """Answers at the gateway's gRPC port."""
    fake, server = FakeRecommender(), grpc.aio.server()
    add_RecommenderServicer_to_server(fake, server)
    server.add_insecure_port(settings.gateway_target)
    await server.start()
    yield fake
    await server.stop(0)


@pytest.fixture
async def driver(settings: Settings) -> AsyncIterator[FakeDriver]:
    """Answers at the operator port."""
    fake, server = FakeDriver(), grpc.aio.server()
    add_RolloutsServicer_to_server(fake, server)
    server.add_insecure_port(f"127.0.0.1:{settings.operator_port}")
    await server.start()
    yield fake
    await server.stop(0)


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the gateway's HTTP port, which is served."""
    async with serving(settings), aiohttp.ClientSession(f"http://127.0.0.1:{settings.http_port}") as session:
        yield session


Post = Callable[..., Awaitable[tuple[int, dict[str, object]]]]


@pytest.fixture
def post(http: aiohttp.ClientSession) -> Post:
    """Calls a method: its HTTP status and the JSON that it is answered with."""

    async def post(method: str, message: object, **headers: str) -> tuple[int, dict[str, object]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with http.post(f"/riptide.v1.{method}", json=message, headers=named) as answer:
            return answer.status, await answer.json()

    return post
