"""SIGKILL of each part of a deployment at every step of a rollout, under load."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psutil
import pytest

from rollout.configuration import read_versions
from rollout.state import Phase
from rollout.window import look
from tests.integration.program import READY_S
from tests.integration.rollouts.deployment import Deployment

pytestmark = pytest.mark.triton

START = (
    "rollout start --steps 20,100 --step-time 1s --grace 3s --shadow 20 --min-calls 10 --min-overlap 0.4"
).split()
STEPS = [phase for phase in Phase if phase not in (Phase.IDLE, Phase.ROLLED_BACK, Phase.EXPERIMENT)]
ORDER = [*STEPS, Phase.IDLE]


async def kill(deployment: Deployment, victim: str) -> None:
    """SIGKILL. Only the driver is started again from here: the others have parents that do it."""
    if victim == "driver":
        assert deployment.driver is not None
        deployment.driver.kill()
        await deployment.start_driver()
    elif victim == "worker":
        worker = deployment.workers[0]
        worker.kill()
        await asyncio.to_thread(worker.wait, READY_S)  # or it would still be counted
    else:
        # The step before may have been over while the one that was killed at it was not back yet.
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    deployment.triton.kill()
                    return
                except (FileNotFoundError, ValueError, psutil.NoSuchProcess):  # no file, empty, of the dead
                    await asyncio.sleep(0.02)


async def every_worker_serves(deployment: Deployment) -> None:
    """Returns when each of the gateway's workers has reported."""
    async with asyncio.timeout(READY_S):
        while True:
            sources = (await look(deployment.store.control, time.time())).reports
            workers = [str(worker.pid) for worker in deployment.workers]
            if len(workers) == deployment.settings.workers and all(
                any(pid in source.split("/") for source in sources) for pid in workers
            ):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("victim", ["driver", "worker", "triton"])
async def test_a_part_that_is_killed_at_every_step_fails_no_call_and_each_rollout_comes_to_its_end(
    deployment: Deployment, victim: str
) -> None:
    missing = list(STEPS)
    # A caller whose connection breaks tries again, as Riptide's own client does.
    async with deployment.running(driver=True), deployment.load(rate=60, retries=victim == "worker") as load:
        await load.until(calls=60)
        for kind in ("second", "third", "second", "third"):
            version = await asyncio.to_thread(deployment.versions.publish, kind)
            await every_worker_serves(deployment)
            # Beside it: the first step is over before the command is.
            beginning = asyncio.create_task(deployment.run(*START, "--detach"))
            await deployment.reaches(lambda record: record["phase"] != "idle")
            # Some steps take a moment only: those that were missed are met in the next rollout.
            for step in list(missing):
                if victim == "worker":
                    await every_worker_serves(deployment)  # one at a time: two are all there are
                record = await deployment.reaches(lambda record, step=step: _at(record) >= ORDER.index(step))
                if record["phase"] == step:
                    await kill(deployment, victim)
                    missing.remove(step)
            begun = await beginning
            assert begun.returncode == 0, begun.stderr
            record = await deployment.reaches(lambda record: record["phase"] in ("idle", "rolled_back"))
            assert (record["phase"], record["stable"]) == ("idle", version), record
            await deployment.wait_ready()
            await deployment.reaches(
                lambda _, version=version: read_versions(deployment.versions.folder) == [version]
            )
            if not missing:
                break
        done = len(load.calls)
        await load.until(calls=120)
        after = load.calls[done + 60 :]
    assert missing == []
    assert load.failed == []
    if victim != "triton":
        assert load.degraded == []
    assert {call.version for call in after} == {version}
    assert not any(call.degraded for call in after)


def _at(record: dict[str, Any]) -> int:
    """The place of the record's phase; of a rollout that was rolled back the last: nothing more comes."""
    phase = Phase(record["phase"])
    return ORDER.index(phase) if phase in ORDER else len(ORDER)
