"""What is wrong is said before anybody calls."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.loadtest.running import BROWSING, LOCUST, PROXY, ROOT, Gateway, locust


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--slo", "nowhere.toml"), "--slo: nowhere.toml cannot be read: No such file or directory"),
        (
            ("--report", "nowhere/report.json"),
            "--report: nowhere/report.json cannot be written: No such file",
        ),
        (("--report", "/tmp"), "--report: /tmp cannot be written: Is a directory"),
        (
            ("--data", "nowhere"),
            "--data: nowhere has no events.parquet with a column user_id and users in it",
        ),
        (("--think-s", "-1"), "--think-s: -1.0 is no number from 0"),
        (("--rate-per-user", "nan"), "--rate-per-user: nan is no number from 0"),
        (("--browsing", "-3"), "--browsing: -3 is no number from 0"),
        ((*BROWSING, "--browsing", "0"), "one of those who are to call has to be over 0"),
        (("-H", "127.0.0.1:1"), "no gateway answers at 127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anybody_calls(
    gateway: Gateway, data: Path, words: Sequence[str], sentence: str
) -> None:
    status, output = locust(gateway.address, data, *words)
    assert status == 2
    assert sentence in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not gateway.users


def test_a_master_does_not_wait_for_workers_that_cannot_begin(data: Path) -> None:
    began = time.monotonic()
    status, output = locust("127.0.0.1:1", data, "--processes", "2", seconds=60)
    assert status == 2
    assert "no gateway answers at 127.0.0.1:1" in output
    assert time.monotonic() - began < 50


def test_a_shape_wants_to_know_how_many_users_and_how_long(gateway: Gateway, data: Path) -> None:
    command = [*LOCUST[:5], "-H", gateway.address, "--data", str(data), "--shape", "ramp", "-u", "5"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | PROXY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--shape ramp: say with -u how many users there are, and with -t for how long" in done.stderr
