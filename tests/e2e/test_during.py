"""The load test tells of what happens to the whole of Riptide."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Deployment


def test_triton_killed_under_load_costs_no_call_and_no_page_when_it_is_back(
    deployment: Deployment, tmp_path: Path
) -> None:
    level = tmp_path / "level.toml"
    level.write_text("degraded_rate = 0.1\n")  # how quick answers are is the machine's
    victim = deployment.triton
    words = ("triton", "--rate", "20", "--seconds", "3", "--slo", str(level))
    done = deployment.run("benchmarks.during", *words, timeout_s=300)
    report = json.loads((deployment.folder / "var/during/triton/report.json").read_text())
    assert [mark["text"] for mark in report["marks"]] == ["Triton is killed", "Triton is back"], done.stderr
    assert "s into the run: Triton is killed" in done.stdout
    assert "MODEL_UNAVAILABLE: from " in done.stdout
    _, without, _ = report["between"]
    assert without["degraded"] > 0
    assert report["failed"] == 0, done.stdout
    # A machine that has no time for the generator makes a run invalid.
    assert done.returncode in (0, 3), done.stdout
    assert "FAIL" not in done.stdout
    assert "pages before and after it " in done.stdout
    assert deployment.triton.pid != victim.pid
