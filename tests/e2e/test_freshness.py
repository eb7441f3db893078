"""What is recorded now counts now, and the vectors that follow it, against the real thing."""

from __future__ import annotations

import asyncio
import re
import time

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.e2e.conftest import Deployment
from tests.e2e.test_recommend import ids, new_user, page, record

_PATIENCE_S = 60.0


async def known(gateway: RecommenderStub, user: str) -> pb.DescribeUserResponse:
    response: pb.DescribeUserResponse = await gateway.DescribeUser(
        pb.DescribeUserRequest(user_id=user), timeout=5
    )
    return response


async def vector_of(
    gateway: RecommenderStub, user: str, *, unlike: tuple[float, ...] = ()
) -> tuple[float, ...]:
    """The user's stored vector, as soon as there is one other than `unlike`."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        vector = tuple((await known(gateway, user)).user_vector)
        if vector and vector != unlike:
            return vector
        await asyncio.sleep(0.05)
    raise AssertionError(f"no new vector of {user} within {_PATIENCE_S:g} s")


def refreshed(deployment: Deployment) -> float:
    """How many vectors were stored, as the metrics say."""
    stored = re.search(r'riptide_vector_refreshes_total{outcome="stored"} (\S+)', deployment.get("/metrics"))
    return float(stored[1]) if stored else 0.0


async def test_after_an_event_the_users_vector_is_refreshed_though_nobody_asks_for_a_page(
    gateway: RecommenderStub, deployment: Deployment
) -> None:
    user = new_user()
    await record(gateway, user, "50", "172")
    first = await vector_of(gateway, user)
    assert any(first)
    await record(gateway, user, "181")
    assert await vector_of(gateway, user, unlike=first) != first
    end = time.monotonic() + _PATIENCE_S  # figures are put out a few times a second
    while (stored := refreshed(deployment)) < 2 and time.monotonic() < end:
        await asyncio.sleep(0.05)
    assert stored >= 2
    assert "riptide_vector_lag_seconds_count" in deployment.get("/metrics")


async def test_every_event_is_reflected_in_the_very_next_page(gateway: RecommenderStub) -> None:
    user = new_user()
    await record(gateway, user, "50")
    before = await page(gateway, user, 20)
    for _ in range(10):
        # The best item of the page is taken: at once it is gone, and the others are re-scored.
        await record(gateway, user, ids(before)[0])
        after = await page(gateway, user, 20)
        assert after.degraded == pb.DEGRADED_REASON_UNSPECIFIED
        assert ids(before)[0] not in ids(after)
        scores = {item.item_id: item.score for item in before.items}
        assert any(item.score != scores[item.item_id] for item in after.items if item.item_id in scores)
        before = after


async def test_a_page_from_the_encoders_vector_is_that_of_the_request_that_encodes_itself(
    gateway: RecommenderStub,
) -> None:
    """The same history, once with the vector of the process apart and once encoded with the request."""
    user = new_user()
    # Of an age that stays the same for the model while this runs.
    when = int(time.time()) - 700
    events = [
        pb.Event(user_id=user, item_id=item, type=pb.EVENT_TYPE_CLICK, time=when) for item in ("50", "172")
    ]
    await gateway.RecordEvents(pb.RecordEventsRequest(events=events), timeout=5)
    vector = await vector_of(gateway, user)
    cached = await page(gateway, user, 20)
    # A page that names its moment is always encoded with the request.
    encoded = await page(gateway, user, 20, time=int(time.time()))
    assert tuple((await known(gateway, user)).user_vector) == vector
    assert ids(cached) == ids(encoded)
