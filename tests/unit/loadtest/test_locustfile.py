"""`locust -f loadtest/` as people start it, against a small gateway whose answers the test chooses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pyarrow
import pyarrow.parquet
import pytest

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer, add_RecommenderServicer_to_server
from loadtest._visitors import Visitors, newest_data

ROOT = Path(__file__).parents[3]
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/", "--headless", "-u", "4", "-t", "2s"]
# Nobody answers there: what goes through the proxy of the environment fails.
PROXY = {
    "http_proxy": "http://127.0.0.1:1",
    "grpc_proxy": "http://127.0.0.1:1",
    "no_proxy": "",
    "no_grpc_proxy": "",
}
ITEM = pb.RecommendedItem(item_id="i1", rank=1)


class Gateway(RecommenderServicer):
    """Answers every page with `page`, or refuses it if there is none; counts the events it gets."""

    def __init__(self) -> None:
        self.page: pb.RecommendResponse | None = pb.RecommendResponse(items=[ITEM])
        self.users: Counter[str] = Counter()
        self.peers: set[str] = set()
        self.events: list[pb.Event] = []
        self.address = ""

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        self.users[request.user_id] += 1
        self.peers.add(context.peer())
        if self.page is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        assert self.page is not None
        return self.page

    def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        self.events.extend(request.events)
        return pb.RecordEventsResponse(recorded=len(request.events))


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = grpc.server(ThreadPoolExecutor(8))
    gateway = Gateway()
    add_RecommenderServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield gateway
    server.stop(None).wait()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "tiny"
    folder.mkdir(parents=True)
    users = ["busy"] * 9 + ["calm"] * 2 + ["née"]
    pyarrow.parquet.write_table(pyarrow.table({"user_id": users}), folder / "events.parquet")
    return folder


def locust(address: str, data: Path, *words: str) -> tuple[int, str]:
    """Exit status and output of a short run."""
    done = subprocess.run(
        [*LOCUST, "-H", address, "--data", str(data), *words],
        cwd=ROOT,
        env=os.environ | PROXY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_run_prints_throughput_latency_and_no_degraded_answers(gateway: Gateway, data: Path) -> None:
    status, output = locust(gateway.address, data)
    assert status == 0, output
    assert re.search(r"answered +[1-9]\d*: [1-9]\d* per s", output)
    assert re.search(r"p50 \d+ ms, p99 \d+ ms", output)
    assert "degraded  0 (0.00%)" in output
    assert len(gateway.peers) == 4, "a connection of its own for each of so few users"
    assert set(gateway.users) == {"busy", "calm", "née"}
    assert gateway.users["busy"] > gateway.users["calm"] > gateway.users["née"]
    assert {(event.item_id, event.type, event.time > 0) for event in gateway.events} == {
        ("i1", pb.EVENT_TYPE_CLICK, True)
    }


def test_degraded_answers_are_counted_apart_and_are_no_failure(gateway: Gateway, data: Path) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE)
    status, output = locust(gateway.address, data)
    assert status == 0, output
    assert "Recommend, degraded: MODEL_UNAVAILABLE" in output
    assert "(100.00%)" in output
    assert "of them 0 full answers" in output


@pytest.mark.parametrize("page", [None, pb.RecommendResponse()], ids=["refused", "empty"])
def test_a_call_without_a_page_is_a_failure(
    gateway: Gateway, data: Path, page: pb.RecommendResponse | None
) -> None:
    gateway.page = page
    status, output = locust(gateway.address, data)
    assert status == 1
    assert "answered  0: 0 per s" in output
    assert re.search(r"failed +[1-9]", output)


def test_answers_of_several_processes_are_added_up(gateway: Gateway, data: Path) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_COLD_START)
    status, output = locust(gateway.address, data, "--processes", "2", "-t", "4s")
    assert status == 0, output
    assert "(100.00%)" in output


def test_without_a_gateway_it_ends_with_one_line(data: Path) -> None:
    status, output = locust("127.0.0.1:1", data)
    assert status == 1
    assert "no gateway answers at 127.0.0.1:1" in output
    assert "Traceback" not in output


def test_without_data_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        newest_data(tmp_path)


def test_the_newest_data_are_taken(data: Path) -> None:
    assert newest_data(data.parents[1]) == data


def test_users_are_ranked_by_their_events(data: Path) -> None:
    assert Visitors(data).ids == ["busy", "calm", "née"]
