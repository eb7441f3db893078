"""The driver against a repository on disk, a stand-in for Triton, and one for the gateways."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from features.control import Document
from features.figures import Histogram, Report, VersionFigures
from features.settings import Settings
from features.store import StoreUnavailable
from features.traffic import document_name, parse_traffic
from inference.control import READY
from inference.errors import LoadFailed, NoAnswer
from rollout import driver as driver_module
from rollout import loading, state
from rollout.configuration import read_versions
from rollout.driver import Driver, only_driver
from rollout.errors import Busy, PreflightFailed
from rollout.operate import Operator
from rollout.state import Bounds, Phase, Plan, Records, Rollout
from rollout.trial import Trial
from tests.unit.rollout.fakes import FakeControl
from tests.unit.rollout.test_repository import write_version

CONFIG = 'name: "recommender"\nversion_policy { specific { versions: 1 } }\n'
PLAN = Plan(steps=(20, 100), step_s=1e-6, grace_s=0, shadow_percent=20, bounds=Bounds(min_calls=20))
SLOW_MS, USUAL_MS = 50.0, 2.0


class FakeTriton:
    """Loads what config.pbtxt lists, unless a version is broken."""

    def __init__(self, model_folder: Path) -> None:
        self.model_folder = model_folder
        self.stub = None
        self.running = True
        self.has = {1}
        self.broken: set[int] = set()
        self.deadly: set[int] = set()
        """Versions whose load takes Triton along."""
        self.loads = self.deaths = 0

    async def load(self, versions: Sequence[int] | None = None, *, timeout_s: float = 0) -> None:
        self._answers()
        self.loads += 1
        listed = set(read_versions(self.model_folder) if versions is None else versions)
        if listed & self.deadly:
            self.running, self.has, self.deaths = False, set(), self.deaths + 1
            raise NoAnswer("Triton does not answer: UNAVAILABLE Socket closed")
        if broken := listed & self.broken:  # all or nothing
            raise LoadFailed(f"Triton cannot load recommender: version {min(broken)} is corrupt")
        self.has = listed

    async def states(self) -> dict[int, tuple[str, str]]:
        self._answers()
        return dict.fromkeys(self.has, (READY, ""))

    def restart(self) -> None:
        """As the launcher does: the stable version first, then each other that can be loaded."""
        self.running, self.has = True, set(read_versions(self.model_folder)) - self.broken - self.deadly

    def _answers(self) -> None:
        if not self.running:
            raise NoAnswer("Triton does not answer: UNAVAILABLE")


@dataclass
class FakeGateway:
    """Calls what the record says, a hundred users between two reports, and reports it."""

    control: FakeControl
    triton: FakeTriton
    behaves: dict[int, str] = field(default_factory=dict)
    """Version → `fails`, `slow` or `different`, if it does not behave."""
    counted: dict[int, VersionFigures] = field(default_factory=dict)
    unanswered: Counter[int] = field(default_factory=Counter)
    """Version → calls that it was to answer when Triton did not have it, while Triton ran."""
    revision: int = 0
    deaf: bool = False
    lacks: frozenset[int] = frozenset()
    """Versions that it cannot call."""

    async def serve(self) -> None:
        document = self.control.documents.get(document_name("recommender"))
        if document is not None and not self.deaf:
            self.revision = document.revision
            self.traffic = parse_traffic(document.value)
        if self.revision:
            for user in range(100):
                version, cohort = self.traffic.choose(str(user))
                self._call(version)
                if cohort == "stable" and user % 5 == 0 and self.traffic.shadow_percent:
                    assert self.traffic.candidate is not None
                    self._shadow(self.traffic.candidate)
        ready = frozenset(self.triton.has) - self.lacks
        report = Report(time.time(), self.revision, ready, {}, self.counted)
        await self.control.put_report("gateway", report.encode())

    def _call(self, version: int) -> None:
        if self.triton.running and version not in self.triton.has:
            self.unanswered[version] += 1
        fails = not self.triton.running or self.behaves.get(version) == "fails"
        took = self._took(version)
        if self.behaves.get(version) == "foreign":
            self._add(version, VersionFigures(cold=1))
            return
        self._add(
            version,
            VersionFigures(
                calls=1,
                errors=int(fails),
                batches=1,
                failed_batches=int(fails),
                latency=took,
                model_cached=took,
            ),
        )

    def _shadow(self, version: int) -> None:
        different = self.behaves.get(version) == "different"
        fails = not self.triton.running or self.behaves.get(version) == "fails"
        self._add(
            version,
            VersionFigures(
                shadow_calls=1,
                shadow_errors=int(fails),
                shadow_batches=1,
                failed_shadow_batches=int(fails),
                pairs=int(not fails),
                overlap_sum=0.0 if different or fails else 0.8,
                own_scores=1.0,
                live_scores=1.0,
                live_squares=1.0,
            ),
        )

    def _took(self, version: int) -> Histogram:
        took = Histogram()
        took.add([SLOW_MS if self.behaves.get(version) == "slow" else USUAL_MS])
        return took

    def _add(self, version: int, figures: VersionFigures) -> None:
        self.counted[version] = self.counted.get(version, VersionFigures()) + figures


class World:
    """All of it, and a way to let time go on."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            state_dir=folder / "var", model_repository=folder, triton_address="127.0.0.1:1", keep_versions=2
        )
        self.model_folder = folder / "recommender"
        for version in (1, 2):
            write_version(self.model_folder, version)
        (self.model_folder / "config.pbtxt").write_text(CONFIG)
        self.control = FakeControl()
        self.triton = FakeTriton(self.model_folder)
        self.gateway = FakeGateway(self.control, self.triton)
        self.records = Records(self.control, "recommender")
        self.operator = Operator(self.settings, self.records)
        self.driver = self.new_driver()

    def new_driver(self) -> Driver:
        return Driver(self.settings, self.control, self.triton)  # type: ignore[arg-type]  # a stand-in

    async def turn(self) -> Rollout:
        """Gateways serve and the driver ticks, once; the record then."""
        await self.gateway.serve()
        with contextlib.suppress(NoAnswer):
            await self.driver.tick()
        return await self.operator.get()

    async def until(self, *phases: Phase, turns: int = 200) -> Rollout:
        for _ in range(turns):
            rollout = await self.turn()
            if rollout.phase in phases:
                return rollout
        raise AssertionError(f"still {rollout.phase} after {turns} turns: {rollout.history}")

    async def over(self) -> Rollout:
        """The record once the rollout is over, and Triton has what it is to have."""
        await self.until(Phase.IDLE, Phase.ROLLED_BACK)
        for _ in range(3):
            rollout = await self.turn()
        assert self.triton.has == set(rollout.loaded) == set(read_versions(self.model_folder))
        assert read_versions(self.model_folder)[0] == rollout.stable
        return rollout


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    async def fine(*_: Any, **__: Any) -> Trial:
        return Trial(16, 0.7, 1.0)

    monkeypatch.setattr(driver_module, "try_out", fine)
    # Time goes on by turns here.
    monkeypatch.setattr(loading, "_SETTLE_S", 0.0)
    monkeypatch.setattr(loading, "_AGAIN_S", 0.0)
    return World(tmp_path)


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


async def test_a_candidate_that_does_not_load_changes_nothing(world: World) -> None:
    world.triton.broken = {2}
    await world.operator.start(2, PLAN)
    rollout = await world.over()
    assert (rollout.phase, rollout.stable) == (Phase.ROLLED_BACK, 1)
    assert "version 2 is corrupt" in rollout.reason
    assert (world.triton.has, read_versions(world.model_folder)) == ({1}, [1])


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


async def test_after_a_rollout_old_versions_are_deleted_and_those_in_use_are_not(world: World) -> None:
    for version in (3, 4, 5):
        write_version(world.model_folder, version)
    await world.operator.start(5, PLAN)
    await world.over()
    assert sorted(int(path.name) for path in world.model_folder.iterdir() if path.name.isdigit()) == [4, 5]


def test_a_second_driver_of_the_model_is_refused(tmp_path: Path) -> None:
    with only_driver(tmp_path), pytest.raises(Busy, match="another driver"), only_driver(tmp_path):
        pass


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
