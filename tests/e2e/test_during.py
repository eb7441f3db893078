"""The load test tells of what happens to the whole of Riptide."""

from __future__ import annotations

import json

from tests.e2e.conftest import Deployment


def test_triton_killed_under_load_is_told_with_its_moments_and_what_it_cost(deployment: Deployment) -> None:
    victim = deployment.triton
    done = deployment.run("benchmarks.during", "triton", "--rate", "20", "--seconds", "3", timeout_s=300)
    report = json.loads((deployment.folder / "var/during/triton/report.json").read_text())
    assert [mark["text"] for mark in report["marks"]] == ["Triton is killed", "Triton is back"], done.stderr
    assert "s into the run: Triton is killed" in done.stdout
    assert "MODEL_UNAVAILABLE: from " in done.stdout
    _, without, _ = report["between"]
    assert without["degraded"] > 0
    # Of a few seconds with Triton and a few without, far more than one page in a hundred is a fallback page.
    assert any(reason.startswith("degraded_rate: ") for reason in report["reasons"])
    assert done.returncode in (1, 3), done.stdout
    assert report["failed"] == 0, done.stdout
    assert deployment.triton.pid != victim.pid
