"""The driver: what it does in each phase, and what it rolls a candidate back for."""

from __future__ import annotations

from typing import Any

import pytest

from features.figures import VersionFigures
from rollout import driver as driver_module
from rollout import state
from rollout.errors import PreflightFailed
from rollout.state import Phase
from rollout.trial import Trial
from tests.unit.rollout.published import write_version
from tests.unit.rollout.world import PLAN, World


async def test_a_healthy_version_becomes_the_stable_one_and_the_one_before_is_unloaded(world: World) -> None:
    await world.turn()
    await world.operator.start(2, PLAN)
    rollout = await world.over()
    assert (rollout.phase, rollout.stable, rollout.candidate) == (Phase.IDLE, 2, None)
    assert world.triton.has == {2}
    assert world.gateway.unanswered == {}
    # One load for the new version, one to let go of the old one.
    assert world.triton.loads == 2


async def test_without_a_record_the_version_that_is_configured_is_the_stable_one(world: World) -> None:
    rollout = await world.turn()
    assert (rollout.stable, rollout.phase) == (1, Phase.IDLE)
    assert world.triton.loads == 0


async def test_a_record_whose_stable_version_was_deleted_begins_anew(world: World) -> None:
    await world.records.change(lambda _: state.idle(9, 1.0, "of another repository"))
    await world.turn()
    rollout = await world.turn()
    assert rollout.stable == 1
    assert "version 9 is not published any more" in rollout.history[-1].text


@pytest.mark.parametrize(
    ("behaviour", "phase", "reason"),
    [
        ("fails", Phase.SHADOW, "shadow calls failed"),
        ("foreign", Phase.CANARY, "got fallback pages"),
        ("different", Phase.SHADOW, "top 10 holds 0.00"),
        ("slow", Phase.CANARY, "took Triton longer"),
    ],
)
async def test_a_candidate_that_misbehaves_loses_its_traffic_and_is_kept_to_be_looked_at(
    world: World, behaviour: str, phase: Phase, reason: str
) -> None:
    world.gateway.behaves[2] = behaviour
    await world.operator.start(2, PLAN)
    assert (await world.until(phase)).stable == 1
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.ROLLED_BACK, 1)
    assert reason in rollout.reason
    assert world.triton.has == {1, 2}
    await world.operator.discard()
    await world.over()
    assert world.triton.has == {1}


async def test_a_candidate_with_a_spoilt_file_is_never_loaded(world: World) -> None:
    (world.model_folder / "2" / "golden.npz").write_bytes(b"other")
    await world.operator.start(2, PLAN)
    rollout = await world.over()
    assert "golden.npz" in rollout.reason
    assert world.triton.loads == 0


async def test_a_candidate_that_fails_its_trial_meets_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> Trial:
        raise PreflightFailed("version 2 answers scores that are not finite")

    monkeypatch.setattr(driver_module, "try_out", fails)
    await world.operator.start(2, PLAN)
    rollout = await world.over()
    assert "not finite" in rollout.reason
    assert 2 not in world.gateway.counted


async def test_a_share_that_an_operator_has_set_stays_and_the_candidate_is_judged_all_the_same(
    world: World,
) -> None:
    await world.operator.start(2, PLAN)
    await world.until(Phase.SHADOW)
    await world.operator.set_percent(40)
    for _ in range(20):
        rollout = await world.turn()
    assert (rollout.phase, rollout.percent, rollout.held) == (Phase.CANARY, 40, True)
    world.gateway.behaves[2] = "fails"
    assert (await world.over()).phase is Phase.ROLLED_BACK


async def test_a_rollback_while_the_one_before_is_still_loaded_gives_it_all_traffic(world: World) -> None:
    await world.operator.start(2, PLAN.model_copy(update={"grace_s": 3600}))
    await world.until(Phase.RETIRE)
    for _ in range(5):
        await world.turn()
    assert (await world.operator.roll_back("I changed my mind")).stable == 1
    rollout = await world.over()
    assert (rollout.stable, rollout.candidate) == (1, 2)
    assert world.gateway.unanswered == {}


async def test_a_change_for_the_worse_late_in_a_long_step_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.operator.start(2, PLAN.model_copy(update={"step_s": 3600}))
    await world.until(Phase.SHADOW)
    await world.operator.set_percent(20)
    for _ in range(3):
        await world.turn()
    # A million good calls: some tens of bad ones are far below one in a thousand of all.
    world.gateway._add(2, VersionFigures(calls=1_000_000, batches=1_000_000))
    monkeypatch.setattr(driver_module, "_RECENT_S", 0.0)  # the time between two looks, here
    for _ in range(3):
        await world.turn()
    monkeypatch.setattr(driver_module, "_RECENT_S", 3600.0)
    world.gateway.behaves[2] = "fails"
    rollout = await world.over()
    assert rollout.phase is Phase.ROLLED_BACK
    assert "calls failed" in rollout.reason


async def test_after_a_rollout_old_versions_are_deleted_and_those_in_use_are_not(world: World) -> None:
    for version in (3, 4, 5):
        write_version(world.model_folder, version)
    await world.operator.start(5, PLAN)
    await world.over()
    assert sorted(int(path.name) for path in world.model_folder.iterdir() if path.name.isdigit()) == [4, 5]
