"""A gateway whose store is a Valkey, with the real Triton behind it: all that is set is `RIPTIDE_STORE`."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.client import Client
from client.errors import Unavailable
from client.riptide.v1 import recommender_pb2 as pb
from features.settings import Settings
from tests.integration.conftest import Launcher
from tests.integration.program import Program, start, wait_until
from tests.integration.tiny_variant import ITEM_IDS
from tests.ports import free_ports
from tests.valkey import Valkey, one_server

pytestmark = pytest.mark.triton


@dataclass
class Deployment:
    settings: Settings
    store: Valkey
    gateway: Program

    def ready(self) -> bool:
        assert self.gateway.runs, self.gateway.text
        try:
            url = f"http://127.0.0.1:{self.settings.http_port}/readyz"
            with urllib.request.urlopen(url, timeout=10) as answer:
                said: dict[str, str] = json.loads(answer.read())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return set(said.values()) == {"SERVING"}


@pytest.fixture
def deployment(triton: Launcher, tmp_path: Path) -> Iterator[Deployment]:
    grpc_port, http_port = free_ports(2)
    with one_server(tmp_path / "valkey", password="s3cret") as store:
        settings = triton.settings.model_copy(
            update={
                "store": f"redis://:s3cret@{store.address}?timeout_ms=500",
                "state_dir": tmp_path / "state",
                "grpc_port": grpc_port,
                "http_port": http_port,
                "workers": 2,
            }
        )
        deployment = Deployment(settings, store, start(settings, "gateway"))
        try:
            wait_until(deployment.ready, lambda: deployment.gateway.text)
            yield deployment
        finally:
            assert deployment.gateway.stop() == 0, deployment.gateway.text


async def page_once(client: Client, reason: pb.DegradedReason) -> list[str]:
    """The items of a page, as soon as one is degraded for this reason."""
    async with asyncio.timeout(60):
        while True:
            page = await client.recommend("u")
            if page.degraded == reason:
                return [item.item_id for item in page.items]
            await asyncio.sleep(0.05)


def click(item: str, time: int) -> pb.Event:
    return pb.Event(user_id="u", item_id=item, type=pb.EVENT_TYPE_CLICK, time=1_700_000_000 + time)


async def test_it_records_recommends_and_forgets_and_outlives_its_store(deployment: Deployment) -> None:
    async with Client(deployment.settings.gateway_target, timeout_s=20) as client:
        await client.record_events([click(ITEM_IDS[0], 1)])
        first = await client.recommend("u")
        assert first.degraded == pb.DEGRADED_REASON_UNSPECIFIED
        best, second = (item.item_id for item in first.items[:2])
        await client.record_events([click(best, 2)])
        page = await client.recommend("u")
        assert page.degraded == pb.DEGRADED_REASON_UNSPECIFIED
        assert best not in {item.item_id for item in page.items}

        deployment.store.kill()
        assert await page_once(client, pb.DEGRADED_REASON_STORE_UNAVAILABLE)
        with pytest.raises(Unavailable):
            await client.record_events([click(second, 3)])

        deployment.store.start()
        # What was acknowledged is there, and nothing else.
        items = await page_once(client, pb.DEGRADED_REASON_UNSPECIFIED)
        assert best not in items
        described = await client.describe_user("u")
        assert [event.item_id for event in described.events] == [ITEM_IDS[0], best]
        await client.record_events([click(second, 3)])
        assert second not in await page_once(client, pb.DEGRADED_REASON_UNSPECIFIED)

        assert (await client.forget_user("u")).existed
        described = await client.describe_user("u")
        assert (list(described.events), described.excluded_from_training) == ([], True)
    assert "s3cret" not in deployment.gateway.text


def test_an_address_that_is_wrong_ends_the_gateway_at_once_with_what_would_be_right(
    triton: Launcher, tmp_path: Path
) -> None:
    grpc_port, http_port = free_ports(2)
    settings = triton.settings.model_copy(
        update={
            "store": "redis://user:s3cret@127.0.0.1",
            "state_dir": tmp_path / "state",
            "grpc_port": grpc_port,
            "http_port": http_port,
        }
    )
    gateway = start(settings, "gateway")
    assert gateway.process.wait(60) == 2
    assert "RIPTIDE_STORE: each server is host:port" in gateway.text
    assert "s3cret" not in gateway.text
