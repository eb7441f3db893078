"""Times in buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest._histogram import Histogram

TIMES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


def histogram(times: list[float]) -> Histogram:
    made = Histogram()
    for ms in times:
        made.add(ms)
    return made


@given(TIMES, st.floats(0.01, 1))
def test_a_percentile_is_that_of_the_times_themselves(times: list[float], share: float) -> None:
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert histogram(times).percentile(share) == pytest.approx(exact, rel=0.005)


@given(TIMES, TIMES)
def test_those_of_two_processes_add_up(here: list[float], there: list[float]) -> None:
    both = histogram(here)
    both.update(Histogram(histogram(there).buckets))
    assert both.buckets == histogram(here + there).buckets
    assert both.count == len(here + there)


def test_no_time_at_all_is_one_and_no_times_have_no_percentile() -> None:
    assert histogram([0.0, -1.0]).percentile(1) == pytest.approx(0.001, rel=0.005)
    assert Histogram().percentile(0.99) == 0.0
