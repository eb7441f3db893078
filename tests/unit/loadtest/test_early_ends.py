"""Runs that end before their time: a ramp past its knee, and one that somebody ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.unit.loadtest.running import (
    BROWSING,
    LENIENT,
    LOCUST,
    PROXY,
    ROOT,
    Done,
    at_once,
    prepared,
    run,
    serving,
)


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    strict, lenient = folder / "strict.toml", folder / "lenient.toml"
    strict.write_text("p50_ms = 400\n")
    lenient.write_text(LENIENT)
    ramp = (*BROWSING, "--shape", "ramp", "--rate-per-user")
    slow = (*ramp, "2", "-u", "20", "--slo", str(strict))
    quick = (*ramp, "5", "-u", "10", "--slo", str(lenient))
    return at_once(
        {
            "one process": partial(run, folder / "one", *slow, seconds=20, answers_after_s=1.0),
            "several": partial(
                run, folder / "several", *slow, "--processes", "2", seconds=20, answers_after_s=1.0
            ),
            "quick": partial(run, folder / "quick", *quick, seconds=10),
            "Ctrl-C": partial(ended, folder / "Ctrl-C", lenient, signal.SIGINT),
            "SIGTERM": partial(ended, folder / "SIGTERM", lenient, signal.SIGTERM),
        }
    )


def ended(folder: Path, level: Path, number: signal.Signals) -> Done:
    """A run that has no end of its own, after forty calls."""
    data = prepared(folder)
    report = data / "report.json"
    with serving() as gateway:
        process = subprocess.Popen(
            [
                *(*LOCUST, "-H", gateway.address, "--data", str(data), "--think-s", "0.1"),
                *("--slo", str(level), "--report", str(report)),
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
    return Done(process.returncode, output, gateway, json.loads(report.read_text()))


@pytest.mark.parametrize("name", ["one process", "several"])
def test_a_ramp_ends_when_two_steps_in_a_row_have_broken_the_level(done: dict[str, Done], name: str) -> None:
    report, output = done[name].report, done[name].output
    assert report["ended_at_knee"], output
    assert 2 <= len(report["parts"]) < 10, "tenths of what it was to be"
    assert [part["users"] for part in report["parts"]] == list(range(2, 2 * len(report["parts"]) + 1, 2))
    assert "The level breaks from the first step on." in output
    assert "It ended there: two steps in a row broke the level." in output
    assert done[name].status in (1, 3)


def test_a_ramp_that_keeps_the_level_goes_all_the_way(done: dict[str, Done]) -> None:
    report, output = done["quick"].report, done["quick"].output
    assert not report["ended_at_knee"]
    assert [part["users"] for part in report["parts"]] == list(range(1, 11)), output
    assert "The level is kept up to 10 users" in output


@pytest.mark.parametrize("name", ["Ctrl-C", "SIGTERM"])
def test_a_run_that_somebody_ends_is_judged_by_what_it_has_measured(done: dict[str, Done], name: str) -> None:
    report, output = done[name].report, done[name].output
    assert report["pages"]["count"] >= 20, output
    assert (done[name].status, report["verdict"]) in {(0, "PASS"), (3, "INVALID")}, output
    assert report["verdict"] in output.splitlines()[-1]
