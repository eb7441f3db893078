"""What a candidate is rolled back for, and what it is not."""

from __future__ import annotations

import math
import random

import pytest

from features.figures import Histogram, VersionFigures
from rollout.judge import _by_chance, judge
from rollout.state import Bounds

BOUNDS = Bounds(min_calls=50)


def histogram(*latencies_ms: float) -> Histogram:
    made = Histogram()
    made.add(latencies_ms)
    return made


def healthy(calls: int, seed: int = 1) -> VersionFigures:
    draw = random.Random(seed)
    times = [draw.lognormvariate(1, 0.5) for _ in range(calls)]
    return VersionFigures(
        calls=calls, batches=calls, latency=histogram(*times), model_cached=histogram(*times)
    )


def test_a_version_like_the_stable_one_passes_once_it_has_answered_enough() -> None:
    few = judge(healthy(5000), healthy(49, 2), BOUNDS, shadow=False)
    assert (few.breach, few.wanting) == ("", "49 of 50 calls")
    enough = judge(healthy(5000), healthy(500, 2), BOUNDS, shadow=False)
    assert (enough.breach, enough.wanting) == ("", "")
    assert "500 calls, 0 failed" in enough.summary


def test_the_same_distribution_is_hardly_ever_called_slow() -> None:
    breaches = sum(
        bool(judge(healthy(5000, seed), healthy(200, 10_000 + seed), BOUNDS, shadow=False).breach)
        for seed in range(300)
    )
    assert breaches == 0


def test_a_version_five_times_as_slow_is_found_within_some_tens_of_calls() -> None:
    slow = VersionFigures(calls=30, model_cached=histogram(*[5 * math.e] * 30))
    assert "2 times the median" in judge(healthy(5000), slow, BOUNDS, shadow=False).breach


def test_a_version_that_is_slow_now_and_then_is_found_too() -> None:
    slow = VersionFigures(calls=300, model_cached=histogram(*[math.e] * 270, *[40.0] * 30))
    assert "2 times the 99th percentile" in judge(healthy(5000), slow, BOUNDS, shadow=False).breach


def test_slow_is_compared_like_with_like() -> None:
    """Batches that encode take longer in every version, and a new one encodes all its users at first."""
    stable = healthy(5000) + VersionFigures(model_encoded=histogram(*[40.0] * 500))
    encoding = VersionFigures(calls=300, model_encoded=histogram(*[42.0] * 300))
    assert judge(stable, encoding, BOUNDS, shadow=False).breach == ""
    assert judge(
        stable, VersionFigures(calls=300, model_cached=histogram(*[42.0] * 300)), BOUNDS, shadow=False
    ).breach


def test_some_failures_prove_something_and_one_does_not() -> None:
    one = VersionFigures(calls=400, errors=1, batches=400, failed_batches=1)
    assert judge(healthy(5000), one, BOUNDS, shadow=False).breach == ""
    all_of_three = VersionFigures(calls=3, errors=3, batches=3, failed_batches=3)
    assert "3 of 3 batches of calls failed" in judge(healthy(5000), all_of_three, BOUNDS, shadow=False).breach
    one_percent = VersionFigures(calls=600, errors=6, batches=600, failed_batches=6)
    assert "6 of 600" in judge(healthy(5000), one_percent, BOUNDS, shadow=False).breach


def test_one_hiccup_of_the_machine_is_no_breach_however_many_calls_it_held_up() -> None:
    lost = VersionFigures(calls=60, errors=32, batches=3, failed_batches=2)
    assert judge(healthy(5000), lost, BOUNDS, shadow=False).breach == ""
    stalled = VersionFigures(calls=200, batches=12, model_cached=histogram(*[math.e] * 10, 90.0, 90.0))
    assert judge(healthy(5000), stalled, BOUNDS, shadow=False).breach == ""


def test_failures_that_the_stable_version_has_too_are_not_the_candidates() -> None:
    stable = VersionFigures(calls=1000, errors=300, batches=1000, failed_batches=300)
    same = VersionFigures(calls=100, errors=33, batches=100, failed_batches=33)
    assert judge(stable, same, BOUNDS, shadow=False).breach == ""
    worse = VersionFigures(calls=100, errors=60, batches=100, failed_batches=60)
    assert judge(stable, worse, BOUNDS, shadow=False).breach


def test_failed_shadow_calls_count_and_good_ones_do_not_hide_failed_calls() -> None:
    shadow = VersionFigures(shadow_calls=100, shadow_errors=5, shadow_batches=100, failed_shadow_batches=5)
    assert "5 of 100 batches of shadow calls" in judge(healthy(5000), shadow, BOUNDS, shadow=True).breach
    hidden = VersionFigures(
        calls=20, batches=20, failed_batches=3, shadow_calls=100_000, shadow_batches=100_000
    )
    assert "3 of 20 batches of calls failed" in judge(healthy(5000), hidden, BOUNDS, shadow=False).breach


def test_a_candidate_that_knows_less_of_what_users_had_is_in_breach() -> None:
    few = VersionFigures(calls=95, cold=5, batches=95)
    assert judge(healthy(5000), few, BOUNDS, shadow=False).breach == ""
    many = VersionFigures(calls=70, cold=30, batches=70)
    assert (
        "30 of 100 calls (30.00%) got fallback pages"
        in judge(healthy(5000), many, BOUNDS, shadow=False).breach
    )
    foreign = VersionFigures(shadow_cold=40)
    breach = judge(healthy(5000), foreign, BOUNDS, shadow=True).breach
    assert "40 of 40 shadow calls" in breach
    assert "items that it does not know or events of types that it ignores (event_weights of 0)" in breach
    usual = healthy(700) + VersionFigures(cold=300)
    assert judge(usual, many, BOUNDS, shadow=False).breach == ""


def pairs(count: int, *, overlap: float = 0.6, correlation: float = 0.5, ranked: int = 100) -> VersionFigures:
    """Compared answers, of which at most `ranked` share two items."""
    both = min(count, ranked)
    return VersionFigures(
        shadow_calls=count,
        pairs=count,
        overlap_sum=overlap * count,
        ranked=both,
        correlation_sum=correlation * both,
    )


def test_pages_with_nothing_in_common_or_in_reverse_order_are_a_breach_once_there_are_enough_pairs() -> None:
    def breach(figures: VersionFigures) -> str:
        return judge(healthy(5000), figures, BOUNDS, shadow=True).breach

    assert breach(pairs(100)) == ""
    assert "holds 0.05" in breach(pairs(100, overlap=0.05))
    assert breach(pairs(10, overlap=0.0)) == ""
    # An order that has nothing to do with the stable version's is no proof of a defect, its reverse is one.
    assert breach(pairs(100, correlation=-0.2)) == ""
    assert "drift 1.80 (100 pages" in breach(pairs(100, correlation=-0.8))
    assert breach(pairs(100, correlation=-0.8, ranked=19)) == ""


def test_shadow_calls_alone_do_not_pass_without_compared_answers() -> None:
    unread = VersionFigures(shadow_calls=100)
    assert judge(healthy(5000), unread, BOUNDS, shadow=True).wanting == "0 of 20 compared answers"


def test_without_figures_nothing_is_proven_and_nothing_passes() -> None:
    verdict = judge(VersionFigures(), VersionFigures(), BOUNDS, shadow=False)
    assert (verdict.breach, verdict.wanting) == ("", "0 of 50 calls")


@pytest.mark.parametrize(
    ("calls", "hits", "rate"), [(10, 3, 0.1), (100, 5, 0.02), (400, 9, 0.01), (1, 1, 0.5)]
)
def test_the_chance_is_that_of_the_binomial_distribution(calls: int, hits: int, rate: float) -> None:
    exact = sum(math.comb(calls, k) * rate**k * (1 - rate) ** (calls - k) for k in range(hits, calls + 1))
    assert _by_chance(calls, hits, rate) == pytest.approx(exact)


def test_the_chance_at_the_edges() -> None:
    assert _by_chance(0, 0, 0.1) == 1
    assert _by_chance(10, 0, 0.0) == 1
    assert _by_chance(10, 1, 0.0) == 0
    assert _by_chance(10, 10, 1.0) == 1
    assert _by_chance(2_000_000, 3000, 0.001) < 1e-90
