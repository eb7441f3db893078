"""Every metric that dashboard and alerts ask for is in what a real gateway and a real Triton count."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import Counter

import grpc
import pytest

from benchmarks.gateway_metrics import FLUSH_S, parse
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.e2e.conftest import Deployment
from tests.observability import OF_SHADOW_CALLS, scraped


def tritons_metrics(deployment: Deployment) -> str:
    address = f"http://127.0.0.1:{deployment.port('triton_metrics')}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


async def call_everything(gateway: RecommenderStub) -> None:
    """Calls of all kinds that the dashboard tells apart: of a known user, an unknown one, and a wrong one."""
    await gateway.Recommend(pb.RecommendRequest(user_id="196", limit=5), timeout=5)
    user = "of the dashboard"
    page = await gateway.Recommend(pb.RecommendRequest(user_id=user, limit=5), timeout=5)
    item = page.items[0].item_id
    await gateway.SimilarItems(pb.SimilarItemsRequest(item_id=item, limit=5), timeout=5)
    event = pb.Event(user_id=user, item_id=item, type=pb.EVENT_TYPE_CLICK, time=int(time.time()))
    await gateway.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
        await gateway.Recommend(pb.RecommendRequest(user_id=user, limit=-1), timeout=5)


async def test_every_metric_that_is_asked_for_is_in_a_real_scrape(
    deployment: Deployment, gateway: RecommenderStub
) -> None:
    await call_everything(gateway)
    await asyncio.sleep(FLUSH_S)
    counts = parse(deployment.get("/metrics") + tritons_metrics(deployment))
    samples = [(name, dict(labels)) for name, labels in counts.samples]
    missing = {
        f"{asked.place}: {asked.metric}, {sorted(asked.labels)}, {sorted(asked.equal)}"
        for asked in scraped()
        # This stack is not to get another version. tests/integration/rollouts looks for them.
        if asked.metric not in OF_SHADOW_CALLS and not any(asked.met_by(*sample) for sample in samples)
    }
    assert not missing, "\n".join(sorted(missing))


def test_a_scrape_has_each_series_once(deployment: Deployment) -> None:
    """Of two Prometheus takes the first, whatever it says."""
    series = Counter(
        line.rsplit(" ", 1)[0]
        for line in (deployment.get("/metrics") + tritons_metrics(deployment)).splitlines()
        if not line.startswith("#")
    )
    assert [each for each, times in series.items() if times > 1] == []


def test_what_is_not_looked_for_is_asked_for() -> None:
    assert {asked.metric for asked in scraped() if "shadow" in asked.metric} == OF_SHADOW_CALLS
