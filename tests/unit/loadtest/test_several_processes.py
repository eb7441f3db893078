"""Load tests of several processes, and from the web page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
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


def test_a_run_from_the_web_page_is_summarised_when_it_ends(gateway: Gateway, data: Path) -> None:
    port = free_ports(1)[0]
    report = data / "report.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", "loadtest/", "-H", gateway.address),
            *("--data", str(data), "--report", str(report)),
            *("--web-host", "127.0.0.1", "--web-port", str(port)),
        ],
        cwd=ROOT, env=os.environ | PROXY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def ask(path: str, form: dict[str, str] | None = None) -> str:
        body = urllib.parse.urlencode(form).encode() if form else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
            return str(answer.read().decode())

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                page = ask("/")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert "rate_per_user" in page, "the web form has our options"
        form = {"user_count": "3", "spawn_rate": "100", "host": gateway.address}
        nobody = dict.fromkeys(("browsing", "anonymous", "heavy", "bulk", "similar"), "0")
        ask("/swarm", form | nobody | {"plain": "1", "rate_per_user": "10"})
        while len(gateway.requests) < 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ask("/stop", {"": ""})
        while not report.exists() or not report.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert "in an open loop" in output
    assert "Traceback" not in output
    assert {type(request).__name__ for request in gateway.requests} == {"RecommendRequest"}, (
        "the mix of the form"
    )
    # Of twenty and more, but for those before all were there and those in flight.
    assert json.loads(report.read_text())["pages"]["count"] >= 15
