"""One process of the load test: who calls, what is counted, and the verdict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from client.riptide.v1 import recommender_pb2 as pb
from tests.unit.loadtest.running import BROWSING, ITEM, Gateway, figures, locust


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
