"""The driver when Triton, a gateway, the store or a folder is not as it should be."""

from __future__ import annotations

import pytest

from features.control import Document
from features.store import StoreUnavailable
from rollout.configuration import read_versions
from rollout.state import Phase
from tests.unit.rollout.world import PLAN, World


async def test_a_candidate_that_does_not_load_changes_nothing(world: World) -> None:
    world.triton.broken = {2}
    await world.operator.start(2, PLAN)
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.ROLLED_BACK, 1)
    assert "version 2 is corrupt" in rollout.reason
    assert (world.triton.has, read_versions(world.model_folder)) == ({1}, [1])


async def test_nothing_is_unloaded_before_every_gateway_has_taken_notice(world: World) -> None:
    await world.operator.start(2, PLAN)
    await world.until(Phase.CANARY)
    rollout = await world.until(Phase.RETIRE)
    world.gateway.deaf = True  # it still follows the record of a moment ago
    for _ in range(10):
        rollout = await world.turn()
    assert rollout.phase is Phase.RETIRE
    assert world.triton.has == {1, 2}
    world.gateway.deaf = False
    await world.over()
    assert world.gateway.unanswered == {}


@pytest.mark.parametrize(
    "phase", [Phase.CHECK, Phase.LOAD, Phase.PROVE, Phase.SHADOW, Phase.CANARY, Phase.RETIRE]
)
async def test_a_triton_that_is_started_again_in_any_phase_has_what_it_had_and_the_rollout_goes_on(
    world: World, phase: Phase
) -> None:
    await world.operator.start(2, PLAN)
    if phase is not Phase.CHECK:
        await world.until(phase)
    world.triton.running = False
    for _ in range(5):
        await world.turn()
    world.triton.restart()
    assert 1 in world.triton.has
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.IDLE, 2)
    assert world.gateway.unanswered == {}


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.CANARY])
async def test_a_candidate_under_which_triton_keeps_going_down_is_rolled_back_and_not_loaded_again(
    world: World, phase: Phase
) -> None:
    shadow = 20 if phase is Phase.SHADOW else 0
    await world.operator.start(2, PLAN.model_copy(update={"step_s": 3600, "shadow_percent": shadow}))
    await world.until(phase)
    for _ in range(6):
        world.triton.running = False
        await world.turn()
        world.triton.restart()
        await world.turn()
    rollout = await world.over()
    assert rollout.phase is Phase.ROLLED_BACK
    assert "Triton went away" in rollout.reason
    assert world.triton.has == {1}


async def test_a_candidate_whose_load_takes_triton_down_is_not_loaded_for_ever(world: World) -> None:
    world.triton.deadly = {2}
    await world.operator.start(2, PLAN)
    for _ in range(40):
        await world.turn()
        if not world.triton.running:
            world.triton.restart()
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.ROLLED_BACK, 1)
    assert world.triton.deaths <= 5


async def test_a_triton_that_lost_everything_gets_the_stable_version_back_first_though_another_is_broken(
    world: World,
) -> None:
    await world.operator.start(2, PLAN.model_copy(update={"step_s": 3600}))
    await world.until(Phase.SHADOW)
    world.triton.broken = {2}
    world.triton.has = set()  # started again by somebody who loads nothing
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.ROLLED_BACK, 1)
    assert world.triton.has == {1}


async def test_a_version_that_was_kept_to_be_looked_at_is_loaded_again_once_and_then_let_go(
    world: World,
) -> None:
    world.gateway.behaves[2] = "fails"
    await world.operator.start(2, PLAN)
    await world.over()
    world.triton.has = {1}
    await world.over()
    assert world.triton.has == {1, 2}
    world.triton.broken, world.triton.has = {2}, {1}
    rollout = await world.over()
    assert (rollout.phase, rollout.keep_candidate) == (Phase.ROLLED_BACK, False)


async def test_a_version_that_was_kept_and_is_broken_by_now_does_not_keep_the_stable_one_away(
    world: World,
) -> None:
    world.gateway.behaves[2] = "fails"
    await world.operator.start(2, PLAN)
    await world.over()
    world.triton.broken, world.triton.has = {2}, set()
    assert (await world.over()).stable == 1
    assert world.triton.has == {1}


async def test_a_version_goes_on_only_when_every_gateway_can_call_it(world: World) -> None:
    world.gateway.lacks = frozenset({2})
    await world.operator.start(2, PLAN)
    for _ in range(20):
        rollout = await world.turn()
    assert rollout.phase is Phase.PROVE
    world.gateway.lacks = frozenset()
    await world.until(Phase.CANARY)
    world.gateway.lacks = frozenset({2})
    for _ in range(60):
        rollout = await world.turn()
    assert (rollout.phase, rollout.percent) == (Phase.CANARY, 20)
    world.gateway.lacks = frozenset()
    assert (await world.over()).stable == 2


async def test_a_stable_version_whose_folder_was_deleted_goes_on_serving_and_the_record_stays(
    world: World,
) -> None:
    await world.operator.start(2, PLAN.model_copy(update={"step_s": 3600}))
    await world.until(Phase.SHADOW)
    (world.model_folder / "1").rename(world.model_folder.parent / "elsewhere")
    for _ in range(5):
        rollout = await world.turn()
    assert (rollout.phase, rollout.stable, rollout.candidate) == (Phase.SHADOW, 1, 2)
    assert "put it back" in world.driver._note
    (world.model_folder.parent / "elsewhere").rename(world.model_folder / "1")
    await world.turn()
    assert "put it back" not in world.driver._note


async def test_a_store_that_does_not_answer_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.operator.start(2, PLAN)
    await world.until(Phase.SHADOW)

    async def down(_: str) -> Document:
        raise StoreUnavailable("the store cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(world.control, "read_document", down)
        with pytest.raises(StoreUnavailable):
            await world.driver.tick()
    assert (await world.over()).stable == 2
