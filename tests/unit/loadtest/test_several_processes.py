"""Load tests of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.riptide.v1 import recommender_pb2 as pb
from tests.ports import free_ports
from tests.unit.loadtest.running import BROWSING, ITEM, PROXY, ROOT, Gateway, figures


def test_answers_of_several_processes_are_added_up(gateway: Gateway, data: Path) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_COLD_START)
    report = figures(gateway.address, data, "--processes", "2", "--rate-per-user", "10", *BROWSING, seconds=4)
    # But for those before all were there, and those in flight at the end.
    assert report["pages"]["count"] == pytest.approx(sum(gateway.users.values()), abs=20), report["output"]
    assert report["degraded"] == 0, "no model could do better for them"
    assert len(report["generator"]) == 2
    assert report["defects"] == []


def test_workers_take_the_address_from_their_master_and_the_users_from_their_own_data(
    gateway: Gateway, data: Path
) -> None:
    port = str(free_ports(1)[0])
    command = [sys.executable, "-m", "locust", "-f", "loadtest/"]
    worker = subprocess.Popen(
        [*command, "--worker", "--master-host", "127.0.0.1", "--master-port", port, "--data", str(data)],
        cwd=ROOT, env=os.environ | PROXY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        words = ("--master", "--master-bind-port", port, "--expect-workers", "1", "--rate-per-user", "10")
        report = figures(gateway.address, data.parent, *words, *BROWSING, seconds=4)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    assert set(gateway.users) <= {"busy", "calm", "née"}
    assert report["pages"]["count"] == pytest.approx(sum(gateway.users.values()), abs=20), report["output"]
    assert report["defects"] == []
