"""`locust -f loadtest/` as people start it, against a small gateway whose answers the test chooses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
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
from tests.ports import free_ports

ROOT = Path(__file__).parents[3]
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/", "--headless", "-u", "4"]
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
        self.slow_users: set[str] = set()
        self.slow_s = 0.0
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
        slow = self.slow_s if request.user_id in self.slow_users else 0.0
        time.sleep(max(slow, self.answers_after_s, self.first_call + self.silent_s - time.monotonic()))
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


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A service level that a busy machine keeps, too."""
    path = tmp_path / "lenient.toml"
    path.write_text("p50_ms = 4000\np99_ms = 5000\nerror_rate = 0\ndegraded_rate = 0\n")
    return path


def locust(address: str, data: Path, *words: str, seconds: int = 2) -> tuple[int, str]:
    """Exit status and output of a short run."""
    done = subprocess.run(
        [*LOCUST, "-t", f"{seconds}s", "-H", address, "--data", str(data), *words],
        cwd=ROOT,
        env=os.environ | PROXY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def figures(address: str, data: Path, *words: str, seconds: int = 2) -> dict[str, Any]:
    """What `--report` says of a run, with its `status` and `output`."""
    report = data / "report.json"
    status, output = locust(address, data, "--report", str(report), *words, seconds=seconds)
    assert report.exists(), output
    return {"status": status, "output": output, **json.loads(report.read_text())}


def test_a_run_prints_throughput_latency_and_that_it_passed(
    gateway: Gateway, data: Path, lenient: Path
) -> None:
    status, output = locust(gateway.address, data, *BROWSING, "--think-s", "0.1", "--slo", str(lenient))
    assert re.search(r"answered +[1-9]\d*: [1-9]\d*\.\d per s, p50 \d+\.\d ms, p99 \d+\.\d ms", output)
    assert "degraded   0 (0.00%)" in output
    assert "recommender 7" in output
    # A machine that has no time for the generator makes a run invalid.
    assert (status, output.splitlines()[-1].split(":")[0]) in {(0, "PASS"), (3, "INVALID")}, output
    assert len(gateway.peers) == 4, "a connection of its own for each of so few users"


def test_users_come_as_often_as_they_were_active_and_click_on_what_they_were_shown(
    gateway: Gateway, data: Path
) -> None:
    locust(gateway.address, data, *BROWSING, "--think-s", "0.01")
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
        _, output = locust(gateway.address, data, *words, "--think-s", "0.1", seconds=1)
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


def test_a_kind_that_is_named_is_wanted(gateway: Gateway, data: Path) -> None:
    """Even if there is none of it among a hundred."""
    locust(gateway.address, data, "Plain", "--think-s", "0.1", seconds=1)
    assert {request.limit for request in gateway.requests} == {10}


def test_degraded_answers_break_the_service_level_and_their_moment_is_told(
    gateway: Gateway, data: Path
) -> None:
    gateway.page = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE)
    status, output = locust(gateway.address, data)
    assert status in (1, 3), output
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
    status, output = locust(gateway.address, data, *BROWSING)
    assert status in (1, 3)
    assert "answered   0: 0.0 per s" in output
    assert outcome in output
    assert "FAIL: error_rate: 100.000%" in output


def test_in_an_open_loop_pages_are_asked_for_whatever_becomes_of_those_before(
    gateway: Gateway, data: Path
) -> None:
    gateway.answers_after_s = 0.5
    report = figures(gateway.address, data, "--rate-per-user", "5", *BROWSING, seconds=6)
    # 4 users, 5 pages a second each: in a closed loop they would get 8 a second, as each takes half a second.
    assert report["offered"] > 70, report["output"]
    assert report["pages"]["p50_ms"] >= 490
    assert {reason.split(":")[0] for reason in report["reasons"]} >= {"p50_ms", "p99_ms"}


def test_slow_answers_do_not_hide_quick_ones(gateway: Gateway, data: Path) -> None:
    """Twenty calls wait for two seconds each, all the time; those of others are answered at once."""
    gateway.slow_users = {"busy"}
    gateway.slow_s = 2.0
    report = figures(gateway.address, data, "--rate-per-user", "10", *BROWSING, seconds=5)
    assert gateway.users["busy"] > 30
    latencies = {row["p50_ms"] for row in report["rows"] if row["method"] == "RecordEvents"}
    assert max(latencies) < 500, report["output"]


def test_what_a_slow_answer_holds_up_has_waited_too(gateway: Gateway, data: Path) -> None:
    """The gateway answers nobody for three seconds of four: most of what was due has waited for it."""
    gateway.silent_s = 3.0
    report = figures(gateway.address, data, "--rate-per-user", "5", *BROWSING, seconds=4)
    assert report["offered"] > 40, report["output"]
    assert report["pages"]["p50_ms"] > 500, report["output"]


def test_what_hangs_when_the_run_ends_has_failed(gateway: Gateway, data: Path) -> None:
    gateway.silent_s = 60.0
    report = figures(gateway.address, data, *BROWSING, "--think-s", "0.1", seconds=3)
    assert report["failed"] == 4, report["output"]
    assert {row["outcome"] for row in report["rows"]} == {"failed: UNANSWERED"}


def test_a_shape_changes_the_number_of_users_and_the_run_is_told_part_by_part(
    gateway: Gateway, data: Path
) -> None:
    words = ("-u", "10", "--shape", "spike", "--rate-per-user", "10", "--processes", "2")
    report = figures(gateway.address, data, *words, *BROWSING, seconds=10)
    assert [part["users"] for part in report["parts"]].count(10) == 2, report["output"]
    spike = max(part["pages"]["count"] for part in report["parts"])
    assert spike > 2 * report["parts"][1]["pages"]["count"]
    # Calls that come when the run is over are not counted; of those before, none is lost at a step.
    assert report["pages"]["count"] == pytest.approx(sum(gateway.users.values()), rel=0.08), report["output"]
    assert "As time went by:" in report["output"]


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
    assert json.loads(report.read_text())["pages"]["count"] >= 14


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


def test_without_data_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        newest_data(tmp_path)


def test_the_newest_data_are_taken(data: Path) -> None:
    assert newest_data(data.parents[1]) == data


def test_users_are_ranked_by_their_events(data: Path) -> None:
    assert Visitors(data).ids == ["busy", "calm", "née"]
