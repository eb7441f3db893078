"""What is made of what was measured."""

from __future__ import annotations

import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from loadtest._histogram import Histogram
from loadtest._marks import Mark
from loadtest._parts import Moment, is_past_knee, parts, parts_over
from loadtest._report import FAIL, INVALID, PASS, make_report
from loadtest._tally import FAILED, FULL, RECOMMEND, Process, Row, Second, Tally
from loadtest._text import as_json, as_text
from loadtest.shapes import ramp
from loadtest.slo import ServiceLevel

LEVEL = ServiceLevel(p50_ms=50, p99_ms=100, error_rate=0.1, degraded_rate=0.1, achieved=0.9)
START = 1_700_000_000


def row(outcome: str = FULL, version: int = 3, method: str = RECOMMEND) -> Row:
    return Row(method, f"recommender {version}", "stable", outcome)


def tally_of(*pages: tuple[int, str, float], wall_s: float = 10.0, busiest: float = 0.1) -> Tally:
    """(second, outcome, ms) of each page."""
    tally = Tally()
    for at, outcome, ms in pages:
        tally.latency[row(outcome)].add(ms)
        second = tally.seconds[START + at]
        second.outcomes[outcome] += 1
        if not outcome.startswith(FAILED):
            second.latency.add(ms)
        tally.late.add(0.1)
        tally.begun, tally.ended = START, max(tally.ended, START + at + 1.0)
    tally.processes["here"] = Process(1.0, wall_s, busiest)
    return tally


def report(tally: Tally, **changes: Any) -> Any:
    return make_report(tally, LEVEL, **{"users": 5, "rate_per_user": 0.0} | changes)


GOOD = [(second, FULL, 10.0) for second in range(10)]


def test_a_run_that_keeps_the_level_passes_and_says_what_was_asked_for() -> None:
    done = report(tally_of(*GOOD))
    assert done.code == PASS
    assert (done.pages.count, done.pages.per_s) == (10, 1.0)
    assert done.pages.p50_ms == pytest.approx(10, rel=0.01)
    text = as_text(done)
    assert "Recommend, 5 users in a closed loop, 10 s:" in text
    assert "answered   10: 1.0 per s, p50 10.0 ms, p99 10.0 ms" in text
    assert text.endswith("PASS: p50_ms 50, p99_ms 100, error_rate 0.1, degraded_rate 0.1, achieved 0.9")


def test_what_is_broken_is_named_and_a_user_of_whom_nothing_is_known_breaks_nothing() -> None:
    done = report(tally_of(*GOOD, (4, "MODEL_UNAVAILABLE", 10.0), (4, "STALE_VECTOR", 10.0)))
    assert done.code == FAIL
    assert done.degraded == 2
    assert "FAIL: degraded_rate: 16.667%, at most 10.000% wanted" in as_text(done)
    assert report(tally_of(*GOOD, *[(4, "COLD_START", 10.0)] * 20)).code == PASS


def test_failed_calls_count_as_errors_and_not_as_pages() -> None:
    tally = tally_of(*GOOD, (5, FAILED + "UNAVAILABLE", 1.0))
    tally.latency[Row("RecordEvents", "", "", FAILED + "INTERNAL")].add(1.0)
    done = report(tally)
    assert (done.pages.count, done.calls, done.failed) == (10, 12, 2)
    assert done.breaches == ["error_rate: 16.667%, at most 10.000% wanted"]


def test_each_version_and_outcome_has_a_line() -> None:
    tally = tally_of(*GOOD)
    tally.latency[row("MODEL_UNAVAILABLE", version=4)].update(Histogram({0: 3}))
    lines = [line.split() for line in as_text(report(tally)).splitlines()]
    assert ["Recommend", "recommender", "3", "stable", "10", "1.0", "10.0", "10.0"] in lines
    assert ["Recommend", "recommender", "4", "stable", "MODEL_UNAVAILABLE", "3", "0.3", "1.0", "1.0"] in lines


def test_in_an_open_loop_what_was_due_and_not_answered_is_missing() -> None:
    tally = tally_of(*GOOD)
    tally.offered = 20
    done = report(tally, rate_per_user=0.5)
    assert done.achieved == 0.5
    assert "achieved   50.0% of 20 pages that were due" in as_text(done)
    assert "in an open loop, 2 pages/s due" in as_text(done)
    assert done.breaches == ["achieved: 50.0% of what was due, at least 90.0% wanted"]


def test_when_the_generator_had_no_time_left_the_run_is_invalid_whatever_it_measured() -> None:
    busy = report(tally_of(*GOOD, busiest=0.95))
    assert busy.code == INVALID
    assert "INVALID: the load generator was at work for 95% of some seconds" in as_text(busy)
    assert "PASS" not in as_text(busy)

    tally = tally_of(*GOOD)
    tally.processes["another"] = Process(1.0, 10.0, 0.95)
    assert report(tally).code == INVALID, "one of several is enough"

    late = tally_of(*GOOD)
    late.late = Histogram({bucket_of(12.0): 10})
    assert report(late).code == INVALID
    assert "asked for pages 12.0 ms late" in as_text(report(late))
    late.late = Histogram({bucket_of(9.8): 10})
    assert report(late).code == PASS, "a timer's grain"


def bucket_of(ms: float) -> int:
    histogram = Histogram()
    histogram.add(ms)
    return next(iter(histogram.buckets))


def test_a_run_without_a_call_is_invalid() -> None:
    assert report(Tally()).code == INVALID
    assert "INVALID: nothing was asked for" in as_text(report(Tally()))


def test_what_went_wrong_with_the_generator_makes_it_invalid_and_hides_no_breach() -> None:
    done = report(tally_of(*GOOD, *[(4, "MODEL_UNAVAILABLE", 10.0)] * 5), defects=["a worker went missing"])
    assert done.code == INVALID
    lines = as_text(done).splitlines()
    assert lines[-1] == "INVALID: a worker went missing"
    assert lines[-2].startswith("FAIL: degraded_rate")


def test_where_nobody_answers_the_generator_is_not_to_blame() -> None:
    tally = tally_of(*[(second, FAILED + "UNAVAILABLE", 10.0) for second in range(10)])
    tally.late = Histogram({bucket_of(12.0): 10})
    assert report(tally).code == FAIL


def test_a_part_without_answers_lasted_as_long_as_any() -> None:
    pages = [(second, FULL, 10.0) for second in range(100) if second % 10 < 5]
    done = report(tally_of(*pages, (99, FULL, 10.0), wall_s=100), share=ramp)
    assert [part.pages.per_s for part in done.parts] == [0.5] * 9 + [0.6]


def test_the_moments_in_which_something_went_wrong_are_told() -> None:
    wrong = [(second, "MODEL_UNAVAILABLE", 10.0) for second in (3, 4, 6)]
    done = report(tally_of(*GOOD, *wrong, (9, "MODEL_UNAVAILABLE", 1.0), (8, FAILED + "UNAVAILABLE", 1.0)))
    assert done.moments == [
        Moment("MODEL_UNAVAILABLE", START + 3, START + 6, 3, 7),
        Moment(FAILED + "UNAVAILABLE", START + 8, START + 8, 1, 2),
        Moment("MODEL_UNAVAILABLE", START + 9, START + 9, 1, 2),
    ]
    assert "3 s to 6 s into the run, 3 of 7 pages" in as_text(done)


def test_marks_are_told_and_the_run_is_cut_at_them() -> None:
    pages = [(second, FULL, 10.0 if second < 60 else 40.0) for second in range(100)]
    lost = [(second, "MODEL_UNAVAILABLE", 1.0) for second in range(40, 60)]
    marks = [Mark(START + 40.7, "Triton is killed"), Mark(START + 60.0, "Triton is back")]
    tally = tally_of(*pages, *lost, (45, FAILED + "UNAVAILABLE", 1.0), wall_s=100)
    tally.seconds[START + 50].others.add(70.0)
    tally.seconds[START + 50].others_failed = 1
    done = report(tally, marks=marks)
    assert [(part.first - START, part.end - START) for part in done.between] == [(0, 40), (40, 60), (60, 100)]
    assert [part.pages.count for part in done.between] == [40, 40, 40]
    assert [part.pages.per_s for part in done.between] == [1.0, 2.0, 1.0]
    assert [(part.degraded, part.failed) for part in done.between] == [(0, 0), (20, 1), (0, 0)]
    assert [round(part.pages.p99_ms) for part in done.between] == [10, 10, 40]
    assert [(part.others.count, part.others_failed) for part in done.between] == [(0, 0), (1, 1), (0, 0)]
    text = as_text(done)
    assert ", 40 s into the run: Triton is killed\n" in text
    assert text.index("Meanwhile:") < text.index("What went wrong") < text.index("Between the marks:")
    between = [line.split()[:9] for line in text.partition("Between the marks:")[2].splitlines()]
    assert ["40", "60", "40", "2.0", "1.0", "10.0", "20", "1", "1"] in between
    written = json.loads(json.dumps(as_json(done)))
    assert written["marks"] == [
        {"at": START + 40.7, "text": "Triton is killed"},
        {"at": START + 60.0, "text": "Triton is back"},
    ]
    assert [part["degraded"] for part in written["between"]] == [0, 20, 0]


def test_marks_of_an_earlier_run_are_left_out_and_two_of_one_second_cut_once() -> None:
    marks = [Mark(START - 60.0, "earlier"), Mark(START + 4.1, "one"), Mark(START + 4.9, "two")]
    done = report(tally_of(*GOOD), marks=marks)
    assert [mark.text for mark in done.marks] == ["one", "two"]
    assert [part.pages.count for part in done.between] == [4, 6]
    assert "earlier" not in as_text(done)


def test_a_line_that_is_no_mark_is_told_and_does_not_change_the_verdict() -> None:
    done = report(tally_of(*GOOD), marks_not_read=["marks, line 3: is no Unix time"])
    assert done.code == PASS
    assert "  not read: marks, line 3: is no Unix time" in as_text(done).splitlines()


def test_a_run_that_begins_and_ends_within_a_second_is_as_long_as_it_was() -> None:
    tally = tally_of(*GOOD)
    tally.begun, tally.ended = START + 0.5, START + 9.5
    assert report(tally, share=ramp, planned_s=2.0).parts[0].pages.per_s == pytest.approx(1 / 0.5)
    [first, last] = report(tally, marks=[Mark(START + 9.0, "near the end")]).between
    assert first.pages.per_s == pytest.approx(9 / 8.5)
    assert last.pages.per_s == pytest.approx(1 / 0.5)


def test_a_run_with_a_shape_has_a_line_for_each_part_of_it() -> None:
    pages = [(second, FULL, 10.0 if second < 90 else 40.0) for second in range(100)]
    done = report(tally_of(*pages, (95, "STALE_VECTOR", 40.0), wall_s=100), users=50, share=ramp)
    assert [part.users for part in done.parts] == list(range(5, 55, 5))
    assert [part.pages.count for part in done.parts] == [10] * 9 + [11]
    assert done.parts[0].pages.p99_ms == pytest.approx(10, rel=0.01)
    assert done.parts[-1].pages.p99_ms == pytest.approx(40, rel=0.01)
    assert [part.degraded for part in done.parts] == [0] * 9 + [1]
    short = report(tally_of(*GOOD[:3]), share=ramp)
    assert [part.pages.count for part in short.parts] == [1, 1, 1]


def test_a_ramp_tells_up_to_where_the_level_is_kept() -> None:
    def ramped(*pages: tuple[int, str, float]) -> str:
        return as_text(report(tally_of(*pages, wall_s=100), users=50, share=ramp))

    quick = [(second, FULL, 10.0) for second in range(100)]
    assert "The level is kept up to 50 users, 1.0 pages per s." in ramped(*quick)
    slow = [(second, FULL, 10.0 if second < 70 or second >= 80 else 150.0) for second in range(100)]
    assert "kept up to 35 users" in ramped(*slow), "what comes after the first break does not count"
    degraded = [(second, "STALE_VECTOR" if second >= 40 else FULL, 10.0) for second in range(100)]
    assert "kept up to 20 users" in ramped(*degraded)
    failed = [(second, FAILED + "UNAVAILABLE" if second >= 20 else FULL, 10.0) for second in range(100)]
    assert "kept up to 10 users" in ramped(*failed)
    assert "The level breaks from the first step on." in ramped(*[(s, FULL, 150.0) for s in range(100)])


def test_steps_of_a_ramp_that_ended_early_are_those_of_the_whole() -> None:
    pages = [(second, FULL, 10.0 if second < 30 else 150.0) for second in range(54)]
    done = report(tally_of(*pages, wall_s=54), users=50, share=ramp, planned_s=100.0, ended_at_knee=True)
    assert [part.users for part in done.parts] == [5, 10, 15, 20, 25, 30]
    assert [part.pages.count for part in done.parts] == [10, 10, 10, 10, 10, 4]
    text = as_text(done)
    assert "The level is kept up to 15 users, 1.0 pages per s." in text
    assert "It ended there: two steps in a row broke the level." in text


def test_a_ramp_is_past_its_knee_when_two_steps_in_a_row_break_the_level() -> None:
    def past(*slow_steps: int, over: int) -> bool:
        pages = [(second, FULL, 150.0 if second // 10 in slow_steps else 10.0) for second in range(100)]
        return is_past_knee(parts(tally_of(*pages), 50, ramp, 100.0)[:over], LEVEL)

    assert past(4, 5, over=6)
    assert not past(4, 5, over=5), "one of them may yet be a hiccup"
    assert not past(4, 6, over=7)
    assert not past(over=10)
    assert not past(0, over=1)
    assert past(0, 1, over=2)


def test_a_step_is_over_when_its_answers_can_be_known() -> None:
    tally = tally_of(*GOOD)
    assert [parts_over(tally, START + at, 100.0) for at in (0, 10, 13.9, 14, 24, 200)] == [0, 0, 0, 1, 2, 10]
    assert parts_over(Tally(), START + 50, 100.0) == 0


def test_what_workers_send_adds_up_to_what_one_would_have_counted() -> None:
    first = tally_of(*GOOD, (5, FAILED + "UNAVAILABLE", 2.0))
    second = tally_of((5, "STALE_VECTOR", 3.0), (7, FULL, 4.0), wall_s=3, busiest=0.7)
    second.processes["there"] = second.processes.pop("here")
    first.offered, second.offered = 7, 8
    second.seconds[START + 5].others.add(3.0)
    second.seconds[START + 5].others_failed = 1
    sum_of_both = Tally()
    for tally in (first, second):
        # As Locust packs what it sends.
        packed = msgpack.dumps(tally.to_message(), use_bin_type=True)
        sum_of_both.update(Tally.of_message(msgpack.loads(packed, raw=False, strict_map_key=False)))
    assert sum_of_both.latency[row(FULL)].count == 11
    assert sum_of_both.latency[row("STALE_VECTOR")].count == 1
    assert sum_of_both.late.count == 13
    assert sum_of_both.offered == 15
    assert sum_of_both.processes == {
        "here": Process(1.0, 10.0, 0.1),
        "there": Process(1.0, 3.0, 0.7),
    }
    assert (sum_of_both.begun, sum_of_both.ended) == (START, START + 10)
    then: Second = sum_of_both.seconds[START + 5]
    assert (then.others.count, then.others_failed) == (1, 1)
    assert then.outcomes == {FULL: 1, FAILED + "UNAVAILABLE": 1, "STALE_VECTOR": 1}
    assert then.latency.count == 2


def test_the_json_has_what_the_summary_has() -> None:
    written = json.loads(json.dumps(as_json(report(tally_of(*GOOD)))))
    assert written["verdict"] == "PASS"
    assert written["pages"]["count"] == 10
    assert written["rows"][0]["version"] == "recommender 3"
    assert written["level"]["p99_ms"] == 100
