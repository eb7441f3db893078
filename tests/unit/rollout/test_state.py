"""The record of a rollout: what may follow on what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features.traffic import Experiment, document_name, parse_traffic
from rollout import state
from rollout.errors import BadRecord, NotPossible
from rollout.records import Records
from rollout.state import Bounds, Phase, Plan, Rollout
from tests.unit.fake_control import FakeControl

PLAN = Plan(steps=(1, 25, 100), shadow_percent=10)
NEW = state.idle(1, 1.0, "version 1 is the stable version")


def at(phase: Phase, plan: Plan = PLAN) -> Rollout:
    """A rollout of version 2 that has come to `phase`."""
    rollout = state.start(NEW, 2, plan, 2.0)
    for move in (
        lambda r: state.checked(r, 3.0),
        lambda r: state.loaded(r, 4.0),
        lambda r: state.proven(r, 5.0, "proven"),
        lambda r: state.passed(r, 6.0, "passed", {}),
        lambda r: state.promote(r, 7.0),
        lambda r: state.retired(r, 8.0),
    ):
        if rollout.phase is phase:
            return rollout
        rollout = move(rollout)
    assert rollout.phase is phase
    return rollout


def test_a_rollout_goes_through_every_phase_and_every_step() -> None:
    rollout = at(Phase.SHADOW)
    assert (rollout.shadow_percent, rollout.percent) == (10, 0)
    shares = []
    while rollout.phase is not Phase.RETIRE:
        rollout = state.passed(rollout, 6.0, "passed", {})
        shares.append(rollout.percent)
    assert shares == [1, 25, 100, 0]
    assert (rollout.stable, rollout.candidate, rollout.previous) == (2, None, 1)
    rollout = state.retired(rollout, 9.0)
    assert (rollout.phase, rollout.previous, rollout.stable) == (Phase.IDLE, None, 2)
    texts = " / ".join(entry.text for entry in rollout.history)
    for part in (
        "begins",
        "whole",
        "unseen",
        "1 % of",
        "25 % of",
        "100 % of",
        "stable version now",
        "let go",
    ):
        assert part in texts


def test_without_shadow_calls_the_first_step_comes_at_once() -> None:
    rollout = state.proven(at(Phase.PROVE, Plan(shadow_percent=0)), 5.0, "proven")
    assert (rollout.phase, rollout.percent) == (Phase.CANARY, 1)


@pytest.mark.parametrize(
    ("phase", "loaded"),
    [
        (Phase.IDLE, (2,)),
        (Phase.CHECK, (1,)),
        (Phase.LOAD, (1, 2)),
        (Phase.PROVE, (1, 2)),
        (Phase.SHADOW, (1, 2)),
        (Phase.CANARY, (1, 2)),
        (Phase.RETIRE, (2, 1)),
    ],
)
def test_what_is_to_be_loaded_follows_from_the_phase_with_the_stable_version_first(
    phase: Phase, loaded: tuple[int, ...]
) -> None:
    assert at(phase).loaded == loaded


@pytest.mark.parametrize(
    "phase", [Phase.CHECK, Phase.LOAD, Phase.PROVE, Phase.SHADOW, Phase.CANARY, Phase.RETIRE]
)
def test_from_every_phase_that_is_under_way_all_traffic_goes_back_to_the_version_before(phase: Phase) -> None:
    rollout = state.roll_back(at(phase), "it is slow", 9.0)
    assert (rollout.phase, rollout.stable, rollout.candidate) == (Phase.ROLLED_BACK, 1, 2)
    assert (rollout.percent, rollout.shadow_percent, rollout.previous) == (0, 0, None)
    assert rollout.reason == "it is slow"
    # One that Triton has is kept, to be looked at.
    assert rollout.loaded == ((1,) if phase in (Phase.CHECK, Phase.LOAD) else (1, 2))
    assert all(rollout.choose(str(user)) == (1, "stable") for user in range(100))


def test_a_version_that_was_rolled_back_is_unloaded_when_it_is_discarded_or_another_comes() -> None:
    rolled_back = state.roll_back(at(Phase.CANARY), "slow", 9.0)
    assert state.discard(rolled_back, 10.0).loaded == (1,)
    assert state.start(rolled_back, 3, PLAN, 10.0).loaded == (1,)
    assert state.not_kept(rolled_back, 10.0).loaded == (1,)
    assert state.roll_back(at(Phase.CANARY), "it takes Triton down", 9.0, keep=False).loaded == (1,)


@pytest.mark.parametrize(
    "phase", [Phase.CHECK, Phase.LOAD, Phase.PROVE, Phase.SHADOW, Phase.CANARY, Phase.RETIRE]
)
def test_a_second_rollout_has_to_wait_for_the_first(phase: Phase) -> None:
    sentence = "is being let go" if phase is Phase.RETIRE else "is under way"
    with pytest.raises(NotPossible, match=sentence):
        state.start(at(phase), 3, PLAN, 9.0)
    with pytest.raises(NotPossible, match=sentence):
        state.serve(at(phase), 3, 9.0)


def test_what_does_not_fit_is_refused_with_the_phase() -> None:
    with pytest.raises(NotPossible, match="the stable version already"):
        state.start(NEW, 1, PLAN, 2.0)
    for phase in (Phase.IDLE, Phase.CHECK, Phase.LOAD, Phase.PROVE, Phase.RETIRE):
        with pytest.raises(NotPossible, match=f"not in {phase}"):
            state.hold_at(at(phase), 5, 9.0)
        with pytest.raises(NotPossible, match=f"not in {phase}"):
            state.promote(at(phase), 9.0)
    with pytest.raises(NotPossible, match="nothing to roll back"):
        state.roll_back(NEW, "why not", 9.0)
    with pytest.raises(NotPossible, match="nothing to roll back"):
        state.roll_back(state.roll_back(at(Phase.CANARY), "slow", 9.0), "again", 9.0)
    with pytest.raises(NotPossible, match="no rolled-back version"):
        state.discard(NEW, 9.0)
    with pytest.raises(NotPossible, match="no experiment runs"):
        state.end_experiment(at(Phase.CANARY), 9.0)


def test_an_operators_share_holds_and_shadow_calls_go_on() -> None:
    held = state.hold_at(at(Phase.SHADOW), 40, 9.0)
    assert (held.phase, held.percent, held.shadow_percent, held.held) == (Phase.CANARY, 40, 10, True)
    assert state.promote(held, 10.0).held is False


def test_an_experiment_runs_once_the_version_has_proven_itself_and_leaves_the_stable_version() -> None:
    experiment = Experiment(name="larger", control=1, treatment=2, percent=50)
    runs = state.proven(at(Phase.PROVE, Plan(experiment=experiment)), 5.0, "proven")
    assert (runs.phase, runs.experiment, runs.loaded) == (Phase.EXPERIMENT, experiment, (1, 2))
    assert {runs.choose(str(user))[0] for user in range(100)} == {1, 2}
    ended = state.end_experiment(runs, 9.0)
    assert (ended.phase, ended.stable, ended.experiment, ended.loaded) == (Phase.IDLE, 1, None, (1,))
    broken = state.roll_back(runs, "it fails", 9.0)
    assert (broken.experiment, broken.stable) == (None, 1)
    assert (runs.end_of("larger"), ended.end_of("larger"), broken.end_of("larger")) == (None, 9.0, 9.0)
    assert state.start(ended, 3, PLAN, 20.0).end_of("larger") == 9.0


@pytest.mark.parametrize("steps", [(), (5, 5), (25, 1), (0, 5), (50, 101)])
def test_steps_that_do_not_rise_from_above_0_to_100_are_refused(steps: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Plan(steps=steps)


def test_the_history_is_bounded_and_keeps_the_latest() -> None:
    rollout = at(Phase.CANARY)
    for percent in range(1, 101):
        rollout = state.hold_at(rollout, percent, 9.0)
    rollout = state.hold_at(rollout, 7, 9.0)
    assert len(rollout.history) == 100
    assert rollout.history[-1].text.endswith("7 %")


MOVES = {
    "start": lambda r: state.start(r, 3 if r.stable == 2 else 2, PLAN, 2.0),
    "checked": lambda r: state.checked(r, 3.0) if r.phase is Phase.CHECK else r,
    "loaded": lambda r: state.loaded(r, 3.0) if r.phase is Phase.LOAD else r,
    "proven": lambda r: state.proven(r, 3.0, "proven") if r.phase is Phase.PROVE else r,
    "passed": lambda r: state.passed(r, 3.0, "", {}) if r.phase in (Phase.SHADOW, Phase.CANARY) else r,
    "retired": lambda r: state.retired(r, 3.0) if r.phase is Phase.RETIRE else r,
    "hold": lambda r: state.hold_at(r, 30, 3.0),
    "promote": lambda r: state.promote(r, 3.0),
    "roll back": lambda r: state.roll_back(r, "why not", 3.0),
    "discard": lambda r: state.discard(r, 3.0),
}


@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=40))
def test_whatever_is_done_in_whatever_order_users_only_meet_versions_that_are_to_be_loaded(
    moves: list[str],
) -> None:
    rollout = NEW
    for move in moves:
        try:
            rollout = MOVES[move](rollout)
        except NotPossible:
            continue
        assert rollout.loaded[0] == rollout.stable
        assert len(set(rollout.loaded)) == len(rollout.loaded) <= 2
        assert {rollout.choose(str(user))[0] for user in range(20)} <= set(rollout.loaded)
        if rollout.shadow_percent:
            assert rollout.candidate in rollout.loaded
        assert Rollout.model_validate_json(rollout.model_dump_json()) == rollout


@pytest.mark.parametrize("field", ["latency_ratio", "drift"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0.0])
def test_a_bound_that_could_not_be_written_or_kept_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        Bounds(**{field: value})


def test_a_reason_is_one_line_of_bounded_length() -> None:
    rolled_back = state.roll_back(at(Phase.CANARY), "graph\n  error\t" + "x" * 5000, 9.0)
    assert rolled_back.reason.startswith("graph error x")
    assert len(rolled_back.reason) == 600


def test_a_version_that_is_being_checked_is_in_use_though_it_is_not_loaded() -> None:
    assert at(Phase.CHECK).in_use == {1, 2}
    assert at(Phase.RETIRE).in_use == {1, 2}
    assert state.roll_back(at(Phase.LOAD), "corrupt", 9.0).in_use == {1, 2}


def test_what_is_stable_already_is_not_made_so_again() -> None:
    assert state.serve(NEW, 1, 9.0) is NEW
    assert state.serve(NEW, 2, 9.0).stable == 2


async def test_two_who_change_the_record_at_once_do_it_one_after_the_other() -> None:
    control = FakeControl()
    records = Records(control, "recommender")
    await records.change(lambda _: at(Phase.CANARY))

    # While the first makes its change, the second is faster.
    tried: list[Phase] = []

    def promote(rollout: Rollout | None) -> Rollout:
        assert rollout is not None
        tried.append(rollout.phase)
        if len(tried) == 1:
            document = control.documents[document_name("recommender")]
            rolled_back = state.roll_back(rollout, "faster", 9.0)
            control.documents[document_name("recommender")] = type(document)(
                document.revision + 1, rolled_back.model_dump_json().encode()
            )
        return state.promote(rollout, 10.0)

    with pytest.raises(NotPossible, match="not in rolled_back"):
        await records.change(promote)
    assert tried == [Phase.CANARY, Phase.ROLLED_BACK]
    rollout, _ = await records.read()
    assert rollout is not None
    assert rollout.reason == "faster"


async def test_gateways_read_the_part_of_the_record_that_is_theirs() -> None:
    control = FakeControl()
    await Records(control, "recommender").change(lambda _: at(Phase.CANARY))
    traffic = parse_traffic(control.documents[document_name("recommender")].value)
    assert (traffic.stable, traffic.candidate, traffic.percent, traffic.shadow_percent) == (1, 2, 1, 10)


async def test_a_record_that_is_none_is_named_with_the_field() -> None:
    control = FakeControl()
    await control.replace_document(document_name("recommender"), b'{"stable": 0, "salt": "s"}', 0)
    with pytest.raises(BadRecord, match="stable"):
        await Records(control, "recommender").read()
