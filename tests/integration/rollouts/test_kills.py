"""SIGKILL of each part of a deployment at every step of a rollout, under load."""

from __future__ import annotations

import pytest

from rollout.configuration import read_versions
from rollout.state import Phase
from tests.integration.rollouts.deployment import Deployment

pytestmark = pytest.mark.triton

START = (
    "rollout start --steps 20,100 --step-time 1s --grace 3s --shadow 20 --min-calls 10 --min-overlap 0.4"
).split()
STEPS = [phase for phase in Phase if phase not in (Phase.IDLE, Phase.ROLLED_BACK, Phase.EXPERIMENT)]
ORDER = [*STEPS, Phase.IDLE]


@pytest.mark.parametrize("victim", ["driver", "worker", "triton"])
async def test_a_part_that_is_killed_at_every_step_fails_no_call_and_the_rollout_comes_to_its_end(
    deployment: Deployment, victim: str
) -> None:
    deployment.versions.publish("second")
    # A caller whose connection breaks tries again, as Riptide's own client does.
    async with deployment.running(driver=True), deployment.load(rate=60, retries=victim == "worker") as load:
        await load.until(calls=60)
        begun = await deployment.run(*START, "--detach")
        assert begun.returncode == 0, begun.stderr
        met = []
        for step in STEPS:
            record = await deployment.reaches(
                lambda record, step=step: ORDER.index(Phase(record["phase"])) >= ORDER.index(step)
            )
            if record["phase"] != step:
                continue  # it was too quick to be met
            met.append(step)
            if victim == "driver":
                assert deployment.driver is not None
                deployment.driver.kill()
                await deployment.start_driver()
            elif victim == "worker":
                deployment.workers[0].kill()
            else:
                deployment.triton.kill()
        record = await deployment.reaches(lambda record: record["phase"] in ("idle", "rolled_back"))
        await deployment.wait_ready()
        await deployment.reaches(lambda _: read_versions(deployment.versions.folder) == [2])
        done = len(load.calls)
        await load.until(calls=120)
        after = load.calls[done + 60 :]
    assert (record["phase"], record["stable"]) == ("idle", 2)
    assert len(met) >= 4, met
    assert load.failed == []
    if victim != "triton":
        assert load.degraded == []
    assert {call.version for call in after} == {2}
    assert not any(call.degraded for call in after)
