"""Drivers that end at any moment, and those that follow them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollout import driver as driver_module
from rollout import state
from rollout.driver import only_driver
from rollout.errors import Busy
from rollout.operate import Operator
from rollout.records import Records
from rollout.state import Phase
from rollout.trial import Trial
from tests.unit.fake_control import FakeControl
from tests.unit.rollout.world import PLAN, World


async def test_a_driver_that_begins_at_100_percent_judges_by_what_the_record_kept(world: World) -> None:
    await world.operator.start(2, PLAN.model_copy(update={"step_s": 1e-6}))
    while (rollout := await world.turn()).percent != 100:
        assert rollout.phase in state.UNDER_WAY
    world.driver = world.new_driver()
    world.gateway.behaves[2] = "slow"
    rollout = await world.over()
    assert rollout.phase is Phase.ROLLED_BACK
    assert "took Triton longer" in rollout.reason


async def test_an_error_that_nobody_foresaw_ends_the_rollout_and_not_the_driver(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defective(*_: Any, **__: Any) -> Trial:
        raise KeyError("T")

    monkeypatch.setattr(driver_module, "try_out", defective)
    monkeypatch.setattr(driver_module, "TICK_S", 0.001)
    await world.operator.start(2, PLAN)
    running = asyncio.create_task(world.driver.run())
    async with asyncio.timeout(30):
        while (rollout := await world.operator.get()).phase is not Phase.ROLLED_BACK:
            await world.gateway.serve()
            await asyncio.sleep(0.001)
    assert "the driver failed 3 times: KeyError" in rollout.reason
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Killed(Exception):
    """The driver is gone."""


class KillingControl(FakeControl):
    """Ends its user before, or after, the n-th write of the record."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.kill: Callable[[int], str] = lambda _: ""

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        if not name.startswith("rollout/"):
            return await super().replace_document(name, value, revision)
        self.writes += 1
        how = self.kill(self.writes)
        if how == "before":
            raise Killed
        done = await super().replace_document(name, value, revision)
        if how == "after":
            raise Killed
        return done


@pytest.mark.parametrize("how", ["before", "after"])
async def test_a_driver_that_is_killed_at_every_write_of_the_record_is_followed_by_one_that_goes_on(
    world: World, how: str
) -> None:
    control = KillingControl()
    world.control = world.gateway.control = control
    world.records = Records(control, "recommender")
    world.operator = Operator(world.settings, world.records)
    await world.operator.get()
    await world.operator.start(2, PLAN)
    # Every second attempt, so that it comes on at all when it is killed before each.
    killed: set[int] = set()

    def kill(write: int) -> str:
        if write % 2:
            killed.add(write)
            return how
        return ""

    control.kill = kill
    world.driver = world.new_driver()
    phases = []
    for _ in range(200):
        await world.gateway.serve()
        try:
            await world.driver.tick()
        except Killed:
            world.driver = world.new_driver()
        rollout, _ = await world.records.read()
        assert rollout is not None
        phases.append(rollout.phase)
        if rollout.phase is Phase.IDLE:
            break
    assert len(killed) >= 4
    assert {Phase.LOAD, Phase.PROVE, Phase.SHADOW, Phase.CANARY, Phase.RETIRE, Phase.IDLE} <= set(phases)
    assert (await world.over()).stable == 2
    assert world.gateway.unanswered == {}


async def test_drivers_that_follow_one_another_come_to_the_same_end(world: World) -> None:
    await world.operator.start(2, PLAN)
    rollout = await world.operator.get()
    for turn in range(200):
        if turn % 12 == 0:  # so long does one driver take to count the calls that a step needs
            world.driver = world.new_driver()
        rollout = await world.turn()
        if rollout.phase is Phase.IDLE:
            break
    assert (rollout.phase, rollout.stable) == (Phase.IDLE, 2)


def test_a_second_driver_of_the_model_is_refused(tmp_path: Path) -> None:
    with only_driver(tmp_path), pytest.raises(Busy, match="another driver"), only_driver(tmp_path):
        pass
