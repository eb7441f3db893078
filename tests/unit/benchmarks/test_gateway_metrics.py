"""Reading what a gateway counts."""

from __future__ import annotations

import pytest

from benchmarks.gateway_metrics import parse

BEFORE = """\
# HELP riptide_requests_total Calls answered.
# TYPE riptide_requests_total counter
riptide_requests_total{code="OK",method="Recommend"} 10.0
riptide_requests_total{code="OK",method="RecordEvents"} 5.0
lag_seconds_bucket{le="0.1"} 1.0
lag_seconds_bucket{le="1.0"} 1.0
lag_seconds_bucket{le="+Inf"} 1.0
"""
AFTER = """\
riptide_requests_total{code="OK",method="Recommend"} 30.0
riptide_requests_total{code="INTERNAL",method="Recommend"} 2.0
riptide_requests_total{code="OK",method="RecordEvents"} 5.0
riptide_degraded_total{reason="odd \\"name\\", with=signs"} 1.0
lag_seconds_bucket{le="0.1"} 51.0
lag_seconds_bucket{le="1.0"} 101.0
lag_seconds_bucket{le="+Inf"} 101.0
lag_seconds_sum 2.5e+01
"""


def test_counts_are_what_came_since_and_labels_choose_among_them() -> None:
    since = parse(AFTER) - parse(BEFORE)
    assert since.total("riptide_requests_total", method="Recommend") == 22
    assert since.total("riptide_requests_total", method="Recommend", code="OK") == 20
    assert since.total("riptide_requests_total") == 22
    assert since.total("riptide_degraded_total") == 1
    assert since.total("no_such_total") == 0
    assert since.total("lag_seconds_sum") == 25


def test_a_quantile_lies_in_its_bucket_on_a_straight_line() -> None:
    since = parse(AFTER) - parse(BEFORE)  # 50 up to 0.1 s, 50 more up to 1 s
    assert since.quantile("lag_seconds", 0.25) == pytest.approx(0.05)
    assert since.quantile("lag_seconds", 0.5) == pytest.approx(0.1)
    assert since.quantile("lag_seconds", 0.75) == pytest.approx(0.55)


def test_workers_buckets_are_added_up() -> None:
    text = 'x_bucket{le="1.0",pid="1"} 4\nx_bucket{le="+Inf",pid="1"} 4\n'
    text += 'x_bucket{le="1.0",pid="2"} 0\nx_bucket{le="+Inf",pid="2"} 4\n'
    assert parse(text).quantile("x", 0.25) == pytest.approx(0.5)


def test_beyond_the_last_bound_a_quantile_is_at_least_that_bound() -> None:
    text = 'x_bucket{le="1.0"} 4\nx_bucket{le="+Inf"} 8\n'
    assert parse(text).quantile("x", 0.99) == 1.0


def test_a_histogram_without_samples_has_no_quantile() -> None:
    assert (parse(BEFORE) - parse(BEFORE)).quantile("lag_seconds", 0.5) is None
    assert parse("").quantile("lag_seconds", 0.5) is None
