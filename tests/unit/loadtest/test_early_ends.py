"""Runs that end before their time: a ramp past its knee, and one that somebody ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.loadtest.running import BROWSING, LOCUST, PROXY, ROOT, Gateway, figures


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one process", "several"])
def test_a_ramp_ends_when_two_steps_in_a_row_have_broken_the_level(
    gateway: Gateway, data: Path, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    level = tmp_path / "level.toml"
    level.write_text("p50_ms = 400\n")
    gateway.answers_after_s = 1.0
    words = ("-u", "20", "--shape", "ramp", "--rate-per-user", "2", "--slo", str(level), *processes)
    report = figures(gateway.address, data, *words, *BROWSING, seconds=40)
    assert report["ended_at_knee"], report["output"]
    assert 2 <= len(report["parts"]) < 10, "tenths of what it was to be"
    assert [part["users"] for part in report["parts"]] == list(range(2, 2 * len(report["parts"]) + 1, 2))
    assert "The level breaks from the first step on." in report["output"]
    assert "It ended there: two steps in a row broke the level." in report["output"]
    assert report["status"] in (1, 3)


def test_a_ramp_that_keeps_the_level_goes_all_the_way(gateway: Gateway, data: Path, lenient: Path) -> None:
    words = ("-u", "10", "--shape", "ramp", "--rate-per-user", "5", "--slo", str(lenient))
    report = figures(gateway.address, data, *words, *BROWSING, seconds=10)
    assert not report["ended_at_knee"]
    assert [part["users"] for part in report["parts"]] == list(range(1, 11)), report["output"]
    assert "The level is kept up to 10 users" in report["output"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_that_somebody_ends_is_judged_by_what_it_has_measured(
    gateway: Gateway, data: Path, lenient: Path, number: signal.Signals
) -> None:
    report = data / "report.json"
    process = subprocess.Popen(
        [
            *(*LOCUST, "-H", gateway.address, "--data", str(data), "--think-s", "0.1"),
            *("--slo", str(lenient), "--report", str(report)),
        ],
        cwd=ROOT, env=os.environ | PROXY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    try:
        while len(gateway.requests) < 40 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    written = json.loads(report.read_text())
    assert written["pages"]["count"] >= 20, output
    assert (process.returncode, written["verdict"]) in {(0, "PASS"), (3, "INVALID")}, output
    assert written["verdict"] in output.splitlines()[-1]
