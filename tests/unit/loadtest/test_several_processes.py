"""Load tests of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from client.riptide.v1 import recommender_pb2 as pb
from tests.ports import free_ports
from tests.unit.loadtest.running import BROWSING, EVENTS, ITEM, PROXY, ROOT, Done, at_once, prepared, run

COLD = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_COLD_START)


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    here = ("--processes", "2", "--rate-per-user", "10", *BROWSING)
    return at_once(
        {
            "here": partial(run, folder / "here", *here, page=COLD, seconds=4),
            "elsewhere": partial(with_worker, folder / "elsewhere"),
        }
    )


def with_worker(folder: Path) -> Done:
    """A run of a master without data, and of a worker that has some and was told no address."""
    port = str(free_ports(1)[0])
    command = [sys.executable, "-m", "locust", "-f", "loadtest/"]
    of_worker = ("--data", str(prepared(folder.with_name("of worker"))))
    worker = subprocess.Popen(
        [*command, "--worker", "--master-host", "127.0.0.1", "--master-port", port, *of_worker],
        cwd=ROOT, env=os.environ | PROXY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        words = ("--master", "--master-bind-port", port, "--expect-workers", "1", "--rate-per-user", "10")
        done = run(folder, *words, "--data", str(folder.parent / "nowhere"), *BROWSING, seconds=4)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    return done


def test_answers_of_several_processes_are_added_up(done: dict[str, Done]) -> None:
    report, calls = done["here"].report, done["here"].gateway.users.total()
    # But for those before all were there, and those in flight at the end.
    assert report["pages"]["count"] == pytest.approx(calls, abs=20), done["here"].output
    assert report["degraded"] == 0, "no model could do better for them"
    assert len(report["generator"]) == 2
    assert report["defects"] == []


def test_workers_take_the_address_from_their_master_and_the_users_from_their_own_data(
    done: dict[str, Done],
) -> None:
    report, users = done["elsewhere"].report, done["elsewhere"].gateway.users
    assert users
    assert set(users) <= set(EVENTS)
    assert report["pages"]["count"] == pytest.approx(users.total(), abs=20), done["elsewhere"].output
    assert report["defects"] == []
