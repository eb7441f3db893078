"""`locust -f loadtest/` as people start it, against a small gateway whose answers the test chooses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
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
BROWSING = [
    word for name in ("anonymous", "heavy", "bulk", "similar", "plain") for word in (f"--{name}", "0")
]
"""Nobody but users who browse."""
ITEM = pb.RecommendedItem(item_id="i1", rank=1)
MODEL = pb.ModelVersion(name="recommender", version=7)


class Gateway(RecommenderServicer):
    """Answers every page with `page`, or refuses it if there is none; counts the events it gets."""

    def __init__(self) -> None:
        self.page: pb.RecommendResponse | None = pb.RecommendResponse(items=[ITEM], model=MODEL)
        self.answers_after_s = 0.0
        self.silent_s = 0.0
        """How long after its first call it begins to answer."""
        self.first_call = 0.0
        self.requests: list[Any] = []
        self.users: Counter[str] = Counter()
        self.peers: set[str] = set()
        self.events: list[pb.Event] = []
        self.address = ""

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        self.first_call = self.first_call or time.monotonic()
        time.sleep(max(self.answers_after_s, self.first_call + self.silent_s - time.monotonic()))
        self.requests.append(request)
        self.users[request.user_id] += 1
        self.peers.add(context.peer())
        if self.page is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        assert self.page is not None
        return self.page

    def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        self.requests.append(request)
        self.events.extend(request.events)
        return pb.RecordEventsResponse(recorded=len(request.events))

    def SimilarItems(self, request: Any, context: Any) -> pb.SimilarItemsResponse:
        self.requests.append(request)
        return pb.SimilarItemsResponse(items=[ITEM])


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = grpc.server(ThreadPoolExecutor(128))
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


def test_a_run_prints_throughput_latency_and_that_it_passed(gateway: Gateway, data: Path) -> None:
    status, output = locust(gateway.address, data, *BROWSING)
    assert status == 0, output
    assert re.search(r"answered +[1-9]\d*: [1-9]\d*\.\d per s, p50 \d+\.\d ms, p99 \d+\.\d ms", output)
    assert "degraded   0 (0.00%)" in output
    assert "recommender 7" in output
    assert output.splitlines()[-1].startswith("PASS: p50_ms")
    assert len(gateway.peers) == 4, "a connection of its own for each of so few users"


def test_users_come_as_often_as_they_were_active_and_click_on_what_they_were_shown(
    gateway: Gateway, data: Path
) -> None:
    status, output = locust(gateway.address, data, *BROWSING, "--think-s", "0.01")
    assert status in (0, 3), output  # it may well use all of a core
    assert set(gateway.users) == {"busy", "calm", "née"}
    assert gateway.users["busy"] > gateway.users["née"]
    assert {(event.item_id, event.type, event.time > 0) for event in gateway.events} == {
        ("i1", pb.EVENT_TYPE_CLICK, True)
    }


def test_each_kind_of_user_does_what_its_name_says(gateway: Gateway, data: Path) -> None:
    nobody = dict.fromkeys(("browsing", "anonymous", "heavy", "bulk", "similar", "plain"), "0")
    for kind in nobody:
        gateway.requests.clear()
        words = [word for name, part in (nobody | {kind: "1"}).items() for word in (f"--{name}", part)]
        status, output = locust(gateway.address, data, *words, "-t", "1s", "--think-s", "0.1")
        assert status in (0, 3), output
        pages = [request for request in gateway.requests if isinstance(request, pb.RecommendRequest)]
        assert pages, output
        others = {type(request).__name__ for request in gateway.requests} - {"RecommendRequest"}
        known = {request.user_id for request in pages} <= {"busy", "calm", "née"}
        limits = {(request.limit, request.explain) for request in pages}
        assert (known, limits, others - {"RecordEventsRequest"} if kind == "browsing" else others) == {
            "browsing": (True, {(10, False)}, set()),
            "anonymous": (False, {(10, False)}, set()),
            "heavy": (True, {(50, False)}, {"RecordEventsRequest"}),
            "bulk": (True, {(100, True)}, set()),
            "similar": (True, {(10, False)}, {"SimilarItemsRequest"}),
            "plain": (True, {(10, False)}, set()),
        }[kind]


def test_degraded_answers_break_the_service_level_and_their_moment_is_told(
    gateway: Gateway, data: Path
) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE)
    status, output = locust(gateway.address, data)
    assert status == 1, output
    assert "Recommend, degraded: MODEL_UNAVAILABLE" in output
    assert "(100.00%)" in output
    assert re.search(r"MODEL_UNAVAILABLE: from \d\d:\d\d:\d\d to \d\d:\d\d:\d\d, 0 s to ", output)
    assert "FAIL: degraded_rate: 100.000%, at most 1.000% wanted" in output


@pytest.mark.parametrize(
    ("page", "outcome"),
    [(None, "failed: UNAVAILABLE"), (pb.RecommendResponse(), "failed: EMPTY_PAGE")],
    ids=["refused", "empty"],
)
def test_a_call_without_a_page_is_a_failure(
    gateway: Gateway, data: Path, page: pb.RecommendResponse | None, outcome: str
) -> None:
    gateway.page = page
    status, output = locust(gateway.address, data)
    assert status == 1
    assert "answered   0: 0.0 per s" in output
    assert outcome in output
    assert "FAIL: error_rate: 100.000%" in output


def test_in_an_open_loop_pages_are_asked_for_whatever_becomes_of_those_before(
    gateway: Gateway, data: Path, tmp_path: Path
) -> None:
    gateway.answers_after_s = 0.5
    written = tmp_path / "report.json"
    words = ("--rate-per-user", "5", *BROWSING, "-t", "6s", "--report", str(written))
    status, output = locust(gateway.address, data, *words)
    report = json.loads(written.read_text())
    # 4 users, 5 pages a second each: in a closed loop they would get 8 a second, as each takes half a second.
    assert 60 < report["offered"] < 200, output
    assert report["achieved"] > 0.8
    assert report["pages"]["p50_ms"] >= 500
    assert status == 1
    assert report["verdict"] == "FAIL"
    assert [reason.split(":")[0] for reason in report["reasons"]][:2] == ["p50_ms", "p99_ms"]


def test_what_a_slow_answer_holds_up_has_waited_too(gateway: Gateway, data: Path, tmp_path: Path) -> None:
    """The gateway answers nobody for three seconds of four: most of what was due has waited for it."""
    gateway.silent_s = 3.0
    written = tmp_path / "report.json"
    words = ("--rate-per-user", "5", *BROWSING, "-t", "4s", "--report", str(written))
    _, output = locust(gateway.address, data, *words)
    report = json.loads(written.read_text())
    assert report["offered"] > 40, output
    assert report["pages"]["p50_ms"] > 500, output


def test_a_shape_changes_the_number_of_users_and_the_run_is_told_part_by_part(
    gateway: Gateway, data: Path, tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    words = ("-u", "10", "-t", "10s", "--shape", "spike", "--rate-per-user", "10", "--report", str(written))
    _, output = locust(gateway.address, data, *words, *BROWSING)
    parts = json.loads(written.read_text())["parts"]
    assert [part["users"] for part in parts].count(10) == 2, output
    spike = max(part["pages"]["count"] for part in parts)
    assert spike > 2 * parts[1]["pages"]["count"]
    assert "As time went by:" in output


def test_answers_of_several_processes_are_added_up(gateway: Gateway, data: Path) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_COLD_START)
    status, output = locust(gateway.address, data, "--processes", "2", "-t", "4s", "--anonymous", "1")
    assert status == 0, output
    [line] = [line for line in output.splitlines() if line.startswith("  Recommend") and "COLD_START" in line]
    calls = int(line.split("COLD_START")[1].split()[0])
    assert calls == pytest.approx(sum(gateway.users.values()), abs=8)  # but for those before all were there
    assert re.search(r"generator  \d+%, \d+% of a core", output)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--slo", "nowhere.toml"), "nowhere.toml"),
        (("--report", "nowhere/report.json"), "--report: nowhere is no folder"),
        (("--think-s", "-1"), "--think-s: -1.0 is no number from 0"),
        (("--rate-per-user", "nan"), "--rate-per-user: nan is no number from 0"),
        (("--browsing", "-3"), "--browsing: -3 is no number from 0"),
        (
            [*BROWSING, "--browsing", "0"],
            "one of those who are to call has to be over 0",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anybody_calls(
    gateway: Gateway, data: Path, words: Sequence[str], sentence: str
) -> None:
    status, output = locust(gateway.address, data, *words)
    assert status == 1
    assert sentence in output.splitlines()[-1]
    assert "Traceback" not in output
    assert not gateway.users


def test_a_shape_wants_to_know_how_many_users_and_how_long(gateway: Gateway, data: Path) -> None:
    command = [*LOCUST[:5], "-H", gateway.address, "--data", str(data), "--shape", "ramp", "-u", "5"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | PROXY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "--shape ramp: -u and -t say how many users" in done.stderr


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
