from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import traffic
from features.traffic import CANARY, STABLE, Experiment, Traffic, TrafficError, bucket, parse_traffic

USERS = [f"user-{number}" for number in range(100_000)]
POINT = 0.01
"""One hundredth of the users."""


def at(percent: float, salt: str = "salt", **more: Any) -> Traffic:
    return Traffic(stable=1, candidate=2, percent=percent, salt=salt, **more)


def members(split: Traffic, cohort: str = CANARY) -> set[str]:
    return {user for user in USERS if split.choose(user)[1] == cohort}


def share(users: set[str]) -> float:
    return len(users) / len(USERS)


def experiment(percent: float, name: str = "colours") -> Experiment:
    return Experiment(name=name, control=3, treatment=4, percent=percent)


@pytest.mark.parametrize("percent", [1, 5, 25, 50])
@pytest.mark.parametrize("salt", ["salt", "", "9f86d081884c7d65"])
def test_a_step_gives_the_candidate_its_share_of_the_users(percent: float, salt: str) -> None:
    assert share(members(at(percent, salt))) == pytest.approx(percent / 100, abs=0.5 * POINT)


def test_who_is_in_a_small_share_is_in_every_larger_one() -> None:
    cohorts = [members(at(percent)) for percent in (0, 1, 5, 25, 50, 100)]
    for small, large in pairwise(cohorts):
        assert small < large


def test_a_user_stays_where_they_are_from_call_to_call() -> None:
    assert [at(25).choose(user) for user in USERS[:1000]] == [at(25).choose(user) for user in USERS[:1000]]


def test_the_split_is_the_same_in_every_release() -> None:
    # Gateways of two releases serve side by side during an upgrade: they must agree on every user.
    assert [round(bucket("salt", user), 6) for user in ("196", "item", "用户")] == [
        0.742867,
        0.851498,
        0.346532,
    ]


def test_another_salt_draws_the_users_anew() -> None:
    both = members(at(25, "one")) & members(at(25, "another"))
    assert share(both) == pytest.approx(1 / 16, abs=0.5 * POINT)


def test_at_0_percent_nobody_and_at_100_percent_everybody_meets_the_candidate() -> None:
    assert members(at(0)) == set()
    assert members(at(100), STABLE) == set()
    assert at(100).choose("u") == (2, CANARY)


def test_the_user_whose_digest_is_the_last_of_all_is_among_the_100_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Last:
        def __init__(self, _: bytes, **__: object) -> None: ...

        def digest(self) -> bytes:
            return b"\xff" * 8

    monkeypatch.setattr(traffic, "blake2b", Last)
    monkeypatch.setattr(traffic, "_key", lambda salt: b"")
    assert bucket("salt", "u") < 1
    assert at(100).choose("u") == (2, CANARY)


def test_without_a_candidate_everybody_meets_the_stable_version() -> None:
    alone = Traffic(stable=7, percent=50, salt="salt")
    assert {alone.choose(user) for user in USERS[:1000]} == {(7, STABLE)}


@given(st.text(min_size=1), st.text(min_size=1, max_size=20))
def test_every_id_falls_into_one_cohort(salt: str, user: str) -> None:
    assert 0 <= bucket(salt, user) < 1


def test_both_unicode_spellings_of_an_id_are_one_user() -> None:
    composed = [f"é{number}" for number in range(1000)]
    decomposed = [f"e\u0301{number}" for number in range(1000)]
    assert [at(50).choose(user) for user in composed] == [at(50).choose(user) for user in decomposed]


@pytest.mark.parametrize("percent", [5, 50])
def test_an_experiment_splits_all_users_between_its_arms(percent: float) -> None:
    running = at(0, experiment=experiment(percent))
    treated = members(running, "colours/treatment")
    assert share(treated) == pytest.approx(percent / 100, abs=0.5 * POINT)
    assert members(running, "colours/control") == set(USERS) - treated
    assert {running.choose(user)[0] for user in treated} == {4}
    assert {running.choose(user)[0] for user in set(USERS) - treated} == {3}


def test_who_is_in_an_arm_has_nothing_to_do_with_who_met_the_candidate() -> None:
    treated = members(at(0, experiment=experiment(50)), "colours/treatment")
    assert share(treated & members(at(50))) == pytest.approx(1 / 4, abs=0.5 * POINT)


def test_two_experiments_split_the_users_independently() -> None:
    first = members(at(0, experiment=experiment(50)), "colours/treatment")
    second = members(at(0, experiment=experiment(50, "shapes")), "shapes/treatment")
    assert share(first & second) == pytest.approx(1 / 4, abs=0.5 * POINT)


def test_a_record_with_more_in_it_than_gateways_need_is_read() -> None:
    record = json.loads(at(5, experiment=experiment(50)).model_dump_json())
    record |= {"phase": "canary", "history": [{"time": 1.0, "text": "begun"}]}
    record["experiment"]["note"] = "of a later release"
    assert parse_traffic(json.dumps(record).encode()) == at(5, experiment=experiment(50))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"stable": None}, "stable: "),
        ({"stable": 0}, "stable: "),
        ({"candidate": "two"}, "candidate: "),
        ({"percent": 101}, "percent: "),
        ({"percent": -1}, "percent: "),
        ({"percent": float("nan")}, "percent: "),
        ({"shadow_percent": 1000}, "shadow_percent: "),
        ({"salt": 5}, "salt: "),
        ({"experiment": {"control": 1}}, r"experiment\.name: "),
        ({"experiment": {"name": "a/b", "control": 1, "treatment": 2, "percent": 5}}, r"experiment\.name: "),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_by_its_name(change: dict[str, Any], names: str) -> None:
    record = {"stable": 1, "salt": "salt"} | change
    with pytest.raises(TrafficError, match=names):
        parse_traffic(json.dumps(record).encode())


@pytest.mark.parametrize("missing", ["stable", "salt"])
def test_a_record_that_lacks_a_field_is_refused_by_its_name(missing: str) -> None:
    record = {"stable": 1, "salt": "salt"}
    del record[missing]
    with pytest.raises(TrafficError, match=f"{missing}: Field required"):
        parse_traffic(json.dumps(record).encode())


@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"[]", b"null", b'{"stable": 1'])
def test_bytes_that_are_no_record_are_refused(value: bytes) -> None:
    with pytest.raises(TrafficError, match="the rollout record"):
        parse_traffic(value)


def test_it_tells_whom_pages_can_name() -> None:
    assert Traffic(stable=1, salt="").answering == {(1, "stable")}
    assert at(5).answering == {(1, "stable"), (1, "canary"), (2, "canary")}
    arms = {(3, "e/control"), (4, "e/treatment"), (1, "e/control"), (1, "e/treatment")}
    assert at(5, experiment=experiment(50, "e")).answering == arms
