"""What a process counts."""

from __future__ import annotations

import time

import pytest

from loadtest._tally import FAILED, FULL, RECOMMEND, UNANSWERED, Meter, Row, Tally

PAGE = Row(RECOMMEND, "recommender 3", "stable", FULL)
OTHER = Row("RecordEvents", "", "", FULL)


def test_a_call_counts_from_when_it_was_due_and_its_lateness_from_then_to_when_it_left() -> None:
    tally, now, wall = Tally(), time.perf_counter(), time.time()
    tally.count(PAGE, due=now - 3.5, sent=now - 1.5, ended=now)
    assert tally.latency[PAGE].percentile(1) == pytest.approx(3500, rel=0.01)
    assert tally.late.percentile(1) == pytest.approx(2000, rel=0.01)
    [(second, seen)] = tally.seconds.items()
    assert wall - 4.6 <= second <= wall - 3.4, "of the second in which it was due"
    assert seen.outcomes == {FULL: 1}
    assert seen.latency.count == 1


def test_only_pages_tell_when_something_went_wrong() -> None:
    tally = Tally()
    tally.count(OTHER, due=0.0, sent=0.1, ended=0.2)
    assert tally.latency[OTHER].count == 1
    [second] = tally.seconds.values()
    assert not second.outcomes
    assert second.latency.count == 0
    assert (second.others.count, second.others_failed) == (1, 0)
    tally.count(Row("RecordEvents", "", "", FAILED + "INTERNAL"), due=0.0, sent=0.1, ended=0.2)
    assert (second.others.count, second.others_failed) == (2, 1)
    assert tally.late.count == 0


def test_it_knows_when_its_first_and_its_last_call_were_due() -> None:
    tally, now, wall = Tally(), time.perf_counter(), time.time()
    for due in (now - 3.5, now - 7.0, now - 1.5):
        tally.count(OTHER, due=due, sent=due, ended=now)
    assert tally.begun == pytest.approx(wall - 7.0, abs=0.5)
    assert tally.ended == pytest.approx(wall - 1.5, abs=0.5)


def test_what_is_in_flight_when_the_run_ends_has_failed_if_it_has_waited_long() -> None:
    meter, now = Meter(), time.perf_counter()
    old = meter.leaves(RECOMMEND, now - 2, is_offered=True)
    new = meter.leaves(RECOMMEND, now, is_offered=True)
    assert meter.tally.offered == 2
    meter.stop()
    meter.ends(old, PAGE)
    meter.ends(new, PAGE)
    tally = meter.take("here")
    assert {row: histogram.count for row, histogram in tally.latency.items()} == {
        Row(RECOMMEND, "", "", UNANSWERED): 1
    }
    assert tally.offered == 1, "of the other one nothing is known"


def test_a_user_who_goes_gives_up_what_they_waited_for() -> None:
    meter = Meter()
    call = meter.leaves("RecordEvents", time.perf_counter() - 2)
    meter.is_given_up(call)
    meter.is_given_up(call)
    assert meter.ends(call, OTHER) >= 2
    assert [row.outcome for row in meter.tally.latency] == [UNANSWERED]
    assert meter.tally.offered == 0


def test_what_was_handed_out_is_not_handed_out_again() -> None:
    meter = Meter()
    meter.ends(meter.leaves(RECOMMEND, time.perf_counter(), is_offered=True), PAGE)
    first, second = meter.take("here"), meter.take("here")
    assert (first.latency[PAGE].count, first.offered) == (1, 1)
    assert (len(second.latency), second.offered) == (0, 0)
    assert first.processes["here"].wall_s >= second.processes["here"].wall_s > 0
    meter.stop()
    meter.take("here")
    assert not meter.take("here").processes, "the run is over"


def test_what_was_under_way_before_a_run_is_not_of_it() -> None:
    meter = Meter()
    before = meter.leaves(RECOMMEND, time.perf_counter(), is_offered=True)
    meter.start()
    meter.ends(before, PAGE)
    assert not meter.tally.latency
    assert meter.tally.offered == 0


def test_the_busiest_seconds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, at_work = [0.0], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(time, "thread_time", lambda: at_work[0])
    meter = Meter()
    for seconds, work in ((4, 1), (4, 3.8), (4, 2)):
        clock[0] += seconds
        at_work[0] += work
        meter.ends(meter.leaves(RECOMMEND, clock[0]), PAGE)
    assert meter.take("here").processes["here"].busiest == pytest.approx(0.95)
