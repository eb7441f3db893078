from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.figures import BOUNDS_MS, FiguresError, Histogram, Report, VersionFigures, decode

COUNT = st.integers(0, 2**40)
LATENCIES_MS = st.lists(st.floats(BOUNDS_MS[0], BOUNDS_MS[-1]), min_size=1, max_size=200)


def histogram(*latencies_ms: float) -> Histogram:
    filled = Histogram()
    filled.add(latencies_ms)
    return filled


def plain(figures: VersionFigures) -> dict[str, Any]:
    """Histograms have no equality of their own."""
    values = {field.name: getattr(figures, field.name) for field in fields(figures)}
    return {name: v.sparse() if isinstance(v, Histogram) else v for name, v in values.items()}


def figures_of(calls: int, latency_ms: float = 5.0) -> VersionFigures:
    return VersionFigures(calls=calls, errors=calls // 10, latency=histogram(*[latency_ms] * calls))


def compared(*correlations: float, overlap: float = 1.0) -> VersionFigures:
    pairs = len(correlations)
    return VersionFigures(
        pairs=pairs, overlap_sum=overlap * pairs, ranked=pairs, correlation_sum=sum(correlations)
    )


@st.composite
def some_figures(draw: st.DrawFn) -> VersionFigures:
    drawn: dict[str, Any] = {}
    for field in fields(VersionFigures):
        if field.type == "Histogram":
            drawn[field.name] = histogram(*draw(st.lists(st.floats(0, 1e6), max_size=5)))
        elif field.type == "int":
            drawn[field.name] = draw(COUNT)
        else:
            drawn[field.name] = draw(st.floats(-1e9, 1e9))
    return VersionFigures(**drawn)


@given(LATENCIES_MS, st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_to_the_width_of_a_bucket(latencies_ms: list[float], q: float) -> None:
    exact = np.quantile(latencies_ms, q, method="inverted_cdf")
    assert exact <= histogram(*latencies_ms).quantile(q) * (1 + 1e-9)
    assert histogram(*latencies_ms).quantile(q) <= exact * 1.1 * (1 + 1e-9)


def test_quantiles_of_many_latencies_are_those_of_the_distribution() -> None:
    latencies_ms = np.random.default_rng(1).lognormal(1.5, 0.8, 50_000)
    filled = histogram(*latencies_ms)
    for q in (0.5, 0.9, 0.99, 0.999):
        assert filled.quantile(q) == pytest.approx(np.quantile(latencies_ms, q), rel=0.1)


def test_without_a_latency_there_is_no_quantile() -> None:
    assert math.isnan(Histogram().quantile(0.99))
    assert Histogram().total == 0


def test_latencies_beyond_both_ends_are_counted() -> None:
    filled = histogram(0.0, 1e9)
    assert filled.total == 2
    assert filled.quantile(0.5) == BOUNDS_MS[0]
    assert filled.quantile(1.0) == BOUNDS_MS[-1]


@given(LATENCIES_MS, st.floats(0.1, 1e5))
def test_only_latencies_that_are_longer_count_as_above_a_limit(
    latencies_ms: list[float], limit_ms: float
) -> None:
    above = histogram(*latencies_ms).above(limit_ms)
    assert above <= sum(latency > limit_ms for latency in latencies_ms)
    assert above >= sum(latency > limit_ms * 1.1 * (1 + 1e-9) for latency in latencies_ms)


@given(LATENCIES_MS, LATENCIES_MS)
def test_histograms_add_up_and_their_difference_is_what_came_between(
    first: list[float], then: list[float]
) -> None:
    together = histogram(*first) + histogram(*then)
    assert together.sparse() == histogram(*first, *then).sparse()
    assert (together - histogram(*first)).sparse() == histogram(*then).sparse()


def test_adding_up_leaves_what_is_added_as_it_was() -> None:
    first, then = figures_of(10), figures_of(20)
    before = plain(first)
    assert (first + then).calls == 30
    assert plain(first) == before


@given(some_figures(), some_figures())
def test_figures_add_up_field_by_field(first: VersionFigures, then: VersionFigures) -> None:
    together = plain(first + then)
    for name, value in plain(first).items():
        if isinstance(value, dict):
            total = sum(value.values()) + sum(plain(then)[name].values())
            assert sum(together[name].values()) == total
        else:
            assert together[name] == value + plain(then)[name]


def test_a_window_over_workers_that_come_and_go_counts_every_call_once() -> None:
    before = {"stays": figures_of(100), "went": figures_of(50)}
    # One worker went after its last report, which is still there; another came.
    now = {"stays": figures_of(130), "went": figures_of(50), "came": figures_of(20)}
    window = VersionFigures()
    for worker, figures in now.items():
        window = window + (figures - before[worker] if worker in before else figures)
    assert (window.calls, window.errors) == (50, 5)
    assert window.latency.total == 50


@given(some_figures())
def test_figures_come_back_from_json_as_they_were(figures: VersionFigures) -> None:
    stored = json.loads(json.dumps(figures.plain()))
    assert stored == plain(figures)
    assert plain(VersionFigures.from_plain(stored)) == plain(figures)


@given(some_figures(), st.floats(0, 2e9), COUNT, st.frozensets(st.integers(1, 99)), st.text(max_size=20))
def test_a_report_is_read_as_it_was_written(
    figures: VersionFigures, at: float, revision: int, ready: frozenset[int], reason: str
) -> None:
    report = Report(at, revision, ready, {3: reason}, {1: figures, 12: VersionFigures()})
    again = decode(report.encode())
    assert replace(again, versions={}) == replace(report, versions={})
    assert {version: plain(own) for version, own in again.versions.items()} == {
        1: plain(figures),
        12: plain(VersionFigures()),
    }


def test_a_report_stays_small_however_much_was_counted() -> None:
    figures = figures_of(100_000)
    assert len(Report(1.7e9, 3, frozenset({1}), {}, {1: figures}).encode()) < 1000


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"[]", b"null", b"7", b'{"format": 2}', b'{"format": 2, "at": 1}']
)
def test_bytes_that_are_no_report_are_refused(value: bytes) -> None:
    with pytest.raises(FiguresError, match="not a gateway's report"):
        decode(value)


@pytest.mark.parametrize(
    "change",
    [
        {"at": "noon"},
        {"revision": float("inf")},
        {"ready": 1},
        {"ready": ["one"]},
        {"refused": ["1"]},
        {"versions": []},
        {"versions": {"one": {}}},
        {"versions": {"1": []}},
        {"versions": {"1": {"calls": "many"}}},
        {"versions": {"1": {"calls": {"3": 1}}}},
        {"versions": {"1": {"clicks": 1}}},
        {"versions": {"1": {"latency": 3}}},
        {"versions": {"1": {"latency": {"-1": 3}}}},
        {"versions": {"1": {"latency": {str(len(BOUNDS_MS) + 1): 3}}}},
        {"versions": {"1": {"latency": {"3": 2**70}}}},
    ],
    ids=str,
)
def test_a_report_with_a_wrong_value_is_refused(change: dict[str, Any]) -> None:
    report = json.loads(Report(1.0, 1, frozenset({1}), {}, {1: VersionFigures()}).encode())
    decode(json.dumps(report).encode())
    with pytest.raises(FiguresError, match="not a gateway's report"):
        decode(json.dumps(report | change).encode())


def test_a_report_of_another_format_is_refused_by_its_number() -> None:
    report = json.loads(Report(1.0, 1, frozenset(), {}, {}).encode()) | {"format": 1}
    with pytest.raises(FiguresError, match="format 1, not 2"):
        decode(json.dumps(report).encode())


def test_overlap_is_the_mean_over_the_pairs() -> None:
    pairs = compared(1.0, 1.0, 1.0, overlap=0.9) + compared(1.0, overlap=0.1)
    assert pairs.overlap == pytest.approx(0.7)


def test_drift_is_0_for_the_same_order_1_for_that_of_chance_and_2_for_the_reverse() -> None:
    assert compared(1.0, 1.0).drift == pytest.approx(0.0)
    assert (compared(0.5) + compared(-0.5)).drift == pytest.approx(1.0)
    assert compared(-1.0).drift == pytest.approx(2.0)


def test_without_pairs_there_is_neither_overlap_nor_drift() -> None:
    assert math.isnan(VersionFigures().overlap)
    assert math.isnan(VersionFigures().drift)
    assert math.isnan(VersionFigures(pairs=3, overlap_sum=0.1).drift)
