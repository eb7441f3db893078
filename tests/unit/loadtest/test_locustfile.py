"""One process of the load test: who calls, what is counted, and the verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from client.riptide.v1 import recommender_pb2 as pb
from tests.unit.loadtest.running import BROWSING, EVENTS, ITEM, LENIENT, Done, at_once, run

FALLBACK = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE)
KINDS = ("browsing", "anonymous", "heavy", "bulk", "similar", "plain")
RUNS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "usual": ((*BROWSING, "--think-s", "0.01"), {}),
    "each kind": (
        ("-u", "6", *(word for kind in KINDS for word in (f"--{kind}", "1")), "--think-s", "0.1"),
        {"seconds": 3},
    ),
    "one that is named": (("Plain", "--think-s", "0.1"), {"seconds": 1}),
    "degraded": ((), {"page": FALLBACK}),
    "refused": (BROWSING, {"page": None}),
    "empty": (BROWSING, {"page": pb.RecommendResponse()}),
    "open loop": (("--rate-per-user", "5", *BROWSING), {"answers_after_s": 0.5, "seconds": 6}),
    # Twenty calls wait for two seconds each, all the time; those of others are answered at once.
    "slow for one": (
        ("--rate-per-user", "10", *BROWSING),
        {"slow_users": {"busy"}, "slow_s": 2.0, "seconds": 5},
    ),
    # The gateway answers nobody for three seconds of four: most of what was due has waited for it.
    "silent": (("--rate-per-user", "5", *BROWSING), {"silent_s": 3.0, "seconds": 4}),
    "hangs": ((*BROWSING, "--think-s", "0.1"), {"silent_s": 60.0, "seconds": 3}),
    "spike": (
        ("-u", "10", "--shape", "spike", "--rate-per-user", "10", "--processes", "2", *BROWSING),
        {"seconds": 8},
    ),
}


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    level = folder / "lenient.toml"
    level.write_text(LENIENT)
    runs = {name: partial(run, folder / name, *words, **how) for name, (words, how) in RUNS.items()}
    runs["usual"] = partial(runs["usual"], "--slo", str(level))
    return at_once(runs)


def test_a_run_prints_throughput_latency_and_that_it_passed(done: dict[str, Done]) -> None:
    usual = done["usual"]
    output = usual.output
    assert re.search(r"answered +[1-9]\d*: [1-9]\d*\.\d per s, p50 \d+\.\d ms, p99 \d+\.\d ms", output)
    assert "degraded   0 (0.00%)" in output
    assert "recommender 7" in output
    # A machine that has no time for the generator makes a run invalid.
    verdict = output.splitlines()[-1].split(":")[0]
    assert (usual.status, verdict) in {(0, "PASS"), (3, "INVALID")}, output
    assert len(usual.gateway.peers) == 4, "a connection of its own for each of so few users"


def test_known_users_click_on_what_they_were_shown(done: dict[str, Done]) -> None:
    gateway = done["usual"].gateway
    assert set(gateway.users) == set(EVENTS)
    assert {(event.item_id, event.type, event.time > 0) for event in gateway.events} == {
        ("i1", pb.EVENT_TYPE_CLICK, True)
    }


def test_each_kind_of_user_does_what_its_name_says(done: dict[str, Done]) -> None:
    """One of each; who is who is known by the connections."""
    seen = Counter[tuple[bool, int, bool, frozenset[str]]]()
    for requests in done["each kind"].gateway.peers.values():
        pages = [request for request in requests if isinstance(request, pb.RecommendRequest)]
        [(limit, explain)] = {(request.limit, request.explain) for request in pages}
        known = {request.user_id for request in pages} <= set(EVENTS)
        others = {type(request).__name__ for request in requests} - {"RecommendRequest"}
        seen[known, limit, explain, frozenset(others)] += 1
    browsing = seen[True, 10, False, frozenset({"RecordEventsRequest"})]
    assert browsing <= 1, "a plain user records nothing"
    seen[True, 10, False, frozenset()] += browsing
    del seen[True, 10, False, frozenset({"RecordEventsRequest"})]
    assert seen == {
        (True, 10, False, frozenset()): 2,  # browsing, who may have clicked or not; and plain
        (False, 10, False, frozenset()): 1,
        (True, 50, False, frozenset({"RecordEventsRequest"})): 1,
        (True, 100, True, frozenset()): 1,
        (True, 10, False, frozenset({"SimilarItemsRequest"})): 1,
    }, done["each kind"].output


def test_a_kind_that_is_named_is_wanted(done: dict[str, Done]) -> None:
    """Even if there is none of it among a hundred."""
    assert {request.limit for request in done["one that is named"].gateway.requests} == {10}


def test_degraded_answers_break_the_service_level_and_their_moment_is_told(done: dict[str, Done]) -> None:
    output = done["degraded"].output
    assert done["degraded"].status in (1, 3), output
    assert "Recommend, degraded: MODEL_UNAVAILABLE" in output
    assert "(100.00%)" in output
    assert re.search(r"MODEL_UNAVAILABLE: from \d\d:\d\d:\d\d to \d\d:\d\d:\d\d, 0 s to ", output)
    assert "FAIL: degraded_rate: 100.000%, at most 1.000% wanted" in output


@pytest.mark.parametrize(
    ("name", "outcome"), [("refused", "failed: UNAVAILABLE"), ("empty", "failed: EMPTY_PAGE")]
)
def test_a_call_without_a_page_is_a_failure(done: dict[str, Done], name: str, outcome: str) -> None:
    output = done[name].output
    assert done[name].status in (1, 3)
    assert "answered   0: 0.0 per s" in output
    assert outcome in output
    assert "FAIL: error_rate: 100.000%" in output


def test_in_an_open_loop_pages_are_asked_for_whatever_becomes_of_those_before(done: dict[str, Done]) -> None:
    report = done["open loop"].report
    # 4 users, 5 pages a second each: in a closed loop they would get 8 a second, as each takes half a second.
    assert report["offered"] > 70, done["open loop"].output
    assert report["pages"]["p50_ms"] >= 490
    assert {reason.split(":")[0] for reason in report["reasons"]} >= {"p50_ms", "p99_ms"}


def test_slow_answers_do_not_hide_quick_ones(done: dict[str, Done]) -> None:
    slow = done["slow for one"]
    assert slow.gateway.users["busy"] > 30
    latencies = {row["p50_ms"] for row in slow.report["rows"] if row["method"] == "RecordEvents"}
    assert max(latencies) < 500, slow.output


def test_what_a_slow_answer_holds_up_has_waited_too(done: dict[str, Done]) -> None:
    report = done["silent"].report
    assert report["offered"] > 40, done["silent"].output
    assert report["pages"]["p50_ms"] > 500, done["silent"].output


def test_what_hangs_when_the_run_ends_has_failed(done: dict[str, Done]) -> None:
    report = done["hangs"].report
    assert report["failed"] == 4, done["hangs"].output
    assert {row["outcome"] for row in report["rows"]} == {"failed: UNANSWERED"}


def test_a_shape_changes_the_number_of_users_and_the_run_is_told_part_by_part(done: dict[str, Done]) -> None:
    spike = done["spike"]
    parts = spike.report["parts"]
    assert [part["users"] for part in parts].count(10) == 2, spike.output
    assert max(part["pages"]["count"] for part in parts) > 2 * parts[1]["pages"]["count"]
    # Calls that come when the run is over are not counted; of those before, none is lost at a step.
    calls = spike.gateway.users.total()
    assert spike.report["pages"]["count"] == pytest.approx(calls, rel=0.08), spike.output
    assert "As time went by:" in spike.output
