"""What rollouts are measured against: a deployment on its one version."""

from __future__ import annotations

import pytest

from tests.integration.rollouts.deployment import Deployment

pytestmark = pytest.mark.triton


async def test_a_load_on_one_version_is_answered_by_it_whole(deployment: Deployment) -> None:
    async with deployment.running(), deployment.load() as load:
        await load.until(calls=240)
    assert load.failed == []
    assert load.degraded == []
    assert set(load.by_version) == {1}
    assert {call.items for call in load.calls} == {10}
