"""What is wrong is said before anybody calls."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.unit.loadtest.running import BROWSING, LOCUST, PROXY, ROOT, Done, at_once, locust, prepared, run

WRONG = {
    "a level that is not there": (
        ("--slo", "nowhere.toml"),
        "--slo: nowhere.toml cannot be read: No such file or directory",
    ),
    "a report nowhere": (
        ("--report", "nowhere/report.json"),
        "--report: nowhere/report.json cannot be written: No such file",
    ),
    "a report that is a folder": (("--report", "/tmp"), "--report: /tmp cannot be written: Is a directory"),
    "marks nowhere": (("--marks", "nowhere/marks"), "--marks: nowhere/marks cannot be used: No such file"),
    "no data": (
        ("--data", "nowhere"),
        "--data: nowhere has no events.parquet with a column user_id and users in it",
    ),
    "a pause": (("--think-s", "-1"), "--think-s: -1.0 is no number from 0"),
    "a rate": (("--rate-per-user", "nan"), "--rate-per-user: nan is no number from 0"),
    "a share": (("--browsing", "-3"), "--browsing: -3 is no number from 0"),
    "nobody": ((*BROWSING, "--browsing", "0"), "one of those who are to call has to be over 0"),
    "no gateway": (("-H", "127.0.0.1:1"), "no gateway answers at 127.0.0.1:1"),
}


@pytest.fixture(scope="module")
def refused(folder: Path) -> dict[str, Done]:
    return at_once({name: partial(run, folder / name, *words) for name, (words, _) in WRONG.items()})


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line_before_anybody_calls(refused: dict[str, Done], name: str) -> None:
    done = refused[name]
    assert done.status == 2
    assert WRONG[name][1] in done.output.splitlines()[-1]
    assert "Traceback" not in done.output
    assert not done.gateway.users


def test_a_master_does_not_wait_for_workers_that_cannot_begin(tmp_path: Path) -> None:
    began = time.monotonic()
    status, output = locust("127.0.0.1:1", prepared(tmp_path / "data"), "--processes", "2", seconds=60)
    assert status == 2
    assert "no gateway answers at 127.0.0.1:1" in output
    assert time.monotonic() - began < 50


def test_a_shape_wants_to_know_how_many_users_and_how_long() -> None:
    command = [*LOCUST[:5], "--shape", "ramp", "-u", "5"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | PROXY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--shape ramp: say with -u how many users there are, and with -t for how long" in done.stderr
