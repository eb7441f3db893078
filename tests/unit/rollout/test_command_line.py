"""`python -m rollout` as operators use it: on a store on disk, with nothing that drives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.command_line import parser, plan_of
from tests.unit.rollout.published import write_version

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in (1, 2, 3):
        write_version(tmp_path / "repository" / "recommender", version)
    (tmp_path / "repository" / "recommender" / "config.pbtxt").write_text(
        'name: "recommender"\nversion_policy { specific { versions: 1 } }\n'
    )
    return tmp_path


def rollout(folder: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rollout", *words],
        cwd=ROOT,
        env=os.environ
        | {
            "RIPTIDE_STATE_DIR": str(folder / "var"),
            "RIPTIDE_MODEL_REPOSITORY": str(folder / "repository"),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_an_operators_day_without_a_driver(folder: Path) -> None:
    status, said, _ = rollout(folder, "start", "--version", "2", "--detach")
    assert status == 0
    assert "stable version 1, candidate 2 with 0 %; phase check" in said
    assert "no driver runs" in said
    status, said, _ = rollout(folder, "versions")
    assert [line.split()[:2] for line in said.splitlines()[1:3]] == [["1", "stable"], ["2", "candidate"]]
    status, _, complaint = rollout(folder, "start", "--version", "3", "--detach")
    assert (status, complaint) == (
        2,
        "version 2 is under way (phase check): promote it or roll it back first\n",
    )
    status, said, _ = rollout(folder, "rollback", "--reason", "another time")
    assert status == 0
    assert "because: another time" in said
    assert rollout(folder, "prune", "--keep", "1")[1] == "deleted: none\n"
    status, said, _ = rollout(folder, "discard")
    assert "stable version 1; phase idle" in said
    assert rollout(folder, "prune", "--keep", "1")[1] == "deleted: 2\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["start", "--steps", "5,1", "--detach"], "--steps: must be one or more shares, each larger"),
        (["start", "--version", "9", "--detach"], "version 9 is not published; published are: 1, 2, 3"),
        (["start", "--min-overlap", "2", "--detach"], "--min-overlap: "),
        (["start", "--step-time", "soon"], "--step-time: must be a time such as 30s, 5m or 1h, not 'soon'"),
        (["set", "101"], "percent: must be a number from 0 to 100, not '101'"),
        (["set", "5"], "traffic can be set in the phases shadow and canary, not in idle"),
        (["promote"], "a version can be promoted in the phases shadow and canary, not in idle"),
        (["rollback"], "there is nothing to roll back (phase idle)"),
        (["discard"], "there is no rolled-back version to discard (phase idle)"),
        (["end-experiment"], "no experiment runs (phase idle)"),
        (["report", "--name", "nobody"], "--name: no user has met an experiment 'nobody'"),
        (["start", "--max-drift", "inf", "--detach"], "--max-drift: "),
        (["start", "--step-time", "0s", "--detach"], "--step-time: "),
        (["experiment", "--name", "A B", "--detach"], "--name: "),
    ],
)
def test_what_does_not_fit_ends_with_status_2_and_one_sentence(
    folder: Path, words: list[str], sentence: str
) -> None:
    status, _, complaint = rollout(folder, *words)
    assert status == 2
    assert sentence in complaint.splitlines()[-1]
    assert "Traceback" not in complaint


def test_the_options_make_the_plan() -> None:
    words = "start --steps 2,50 --step-time 5m --shadow 0 --grace 1h --max-latency-ratio 3 --min-calls 7"
    plan = plan_of(parser().parse_args(words.split()))
    assert (plan.steps, plan.step_s, plan.shadow_percent, plan.grace_s) == ((2, 50), 300, 0, 3600)
    assert (plan.bounds.latency_ratio, plan.bounds.min_calls, plan.bounds.overlap) == (3, 7, 0.1)
