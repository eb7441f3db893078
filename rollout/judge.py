"""Whether a candidate may go on, beside what the stable version did in the same time.

A figure from few calls proves little, so rates are not compared as they stand. A candidate is in breach when
its failures, or its slow answers, are more than the bound allows *beyond chance*: when as many or more would
come up less than once in 10,000 looks if it kept the bound exactly (one-sided exact binomial test), and at
least three did. What is counted are requests to Triton: the calls of one share its fate, so they are no
independent samples. And it passes only if it has answered `Bounds.min_calls` calls.

Of the pages themselves, which only shadow calls can show, two things are compared with the live ones: how
many items of the top 10 are the same, and the order of those. Scores are not: a version with a ranking
network answers probabilities, one without answers dot products of any size, and both may be healthy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from features.figures import Histogram, VersionFigures
from rollout.state import Bounds

_CHANCE = 1e-4
_MIN_PAIRS = 20
"""Pairs of answers before their mean overlap or correlation is compared with a bound."""
_MIN_BAD = 3
"""A hiccup of the machine fails a request or two; they would be beyond chance where there are few."""
_MIN_COLD = 10
_MIN_USUAL = 50
"""Batches of the stable version before its quantiles are a measure."""
_QUANTILES = ((0.99, "99th percentile"), (0.5, "median"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a candidate. With neither breach nor want, it passes."""

    breach: str
    """Why it must go."""
    wanting: str
    """What is missing before it can pass."""
    summary: str
    """What was seen, in words."""


def judge(stable: VersionFigures, candidate: VersionFigures, bounds: Bounds, *, shadow: bool) -> Verdict:
    """The verdict over one window.

    Args:
        stable, candidate: what was counted of each in the window; of `stable`, what was counted last while it
            had calls, should the window hold few.
        bounds: what the candidate is held to.
        shadow: the candidate answers unseen only.
    """
    breach = (
        _too_many_errors(stable, candidate, bounds)
        or _too_slow(stable, candidate, bounds)
        or _too_cold(stable, candidate, bounds)
        or _too_different(candidate, bounds)
    )
    calls = candidate.shadow_calls if shadow else candidate.calls
    wanting = ""
    if calls < bounds.min_calls:
        wanting = f"{calls} of {bounds.min_calls} calls"
    elif shadow and candidate.pairs < min(bounds.min_calls, _MIN_PAIRS):
        wanting = f"{candidate.pairs} of {min(bounds.min_calls, _MIN_PAIRS)} compared answers"
    return Verdict(breach, wanting, summary(stable, candidate, shadow=shadow))


def summary(stable: VersionFigures, candidate: VersionFigures, *, shadow: bool) -> str:
    """The figures of a window in words."""
    parts = []
    if shadow:
        parts.append(f"{candidate.shadow_calls} shadow calls, {candidate.shadow_errors} failed")
    else:
        parts.append(f"{candidate.calls} calls, {candidate.errors} failed")
        if candidate.latency.total and stable.latency.total:
            parts.append(
                f"p99 {candidate.latency.quantile(0.99):.1f} ms beside {stable.latency.quantile(0.99):.1f} ms"
            )
    if candidate.pairs:
        parts.append(f"overlap {candidate.overlap:.2f}")
    return ", ".join(parts)


def _too_many_errors(stable: VersionFigures, candidate: VersionFigures, bounds: Bounds) -> str:
    usual = stable.failed_batches / stable.batches if stable.batches else 0.0
    # Apart: many shadow calls that go well must not hide that those with users behind them fail.
    for kind, batches, failed in (
        ("calls", candidate.batches, candidate.failed_batches),
        ("shadow calls", candidate.shadow_batches, candidate.failed_shadow_batches),
    ):
        if _beyond_chance(batches, failed, usual + bounds.error_rate):
            return (
                f"{failed} of {batches} batches of {kind} failed ({failed / batches:.2%}); of the stable "
                f"version's {usual:.2%}, and {bounds.error_rate:.2%} more is the bound"
            )
    return ""


def _too_slow(stable: VersionFigures, candidate: VersionFigures, bounds: Bounds) -> str:
    # Like with like: a batch in which a vector has to be encoded takes longer than one in which none has.
    for kind in ("model_cached", "model_encoded"):
        usual: Histogram = getattr(stable, kind)
        own: Histogram = getattr(candidate, kind)
        if usual.total < _MIN_USUAL:
            continue
        for quantile, name in _QUANTILES:
            limit_ms = bounds.latency_ratio * usual.quantile(quantile)
            slow = own.above(limit_ms)
            if _beyond_chance(own.total, slow, 1 - quantile):
                return (
                    f"{slow} of {own.total} batches took Triton longer than {limit_ms:.1f} ms, "
                    f"{bounds.latency_ratio:g} times the {name} of the stable version"
                )
    return ""


def _too_cold(stable: VersionFigures, candidate: VersionFigures, bounds: Bounds) -> str:
    usual = stable.cold / (stable.calls + stable.cold) if stable.calls + stable.cold else 0.0
    for kind, cold, calls in (
        ("calls", candidate.cold, candidate.cold + candidate.calls),
        ("shadow calls", candidate.shadow_cold, candidate.shadow_cold + candidate.shadow_calls),
    ):
        if cold >= _MIN_COLD and _beyond_chance(calls, cold, usual + bounds.cold_rate):
            return (
                f"{cold} of {calls} {kind} ({cold / calls:.2%}) got fallback pages, as their histories hold "
                "only items that it does not know or events of types that it ignores (event_weights of 0); "
                f"of the stable version's {usual:.2%}, and {bounds.cold_rate:.2%} more is the bound"
            )
    return ""


def _too_different(candidate: VersionFigures, bounds: Bounds) -> str:
    if candidate.pairs >= _MIN_PAIRS and candidate.overlap < bounds.overlap:
        return (
            f"its top 10 holds {candidate.overlap:.2f} of the stable version's ({candidate.pairs} pages), "
            f"and {bounds.overlap:g} is the least"
        )
    if candidate.ranked >= _MIN_PAIRS and candidate.drift > bounds.drift:
        return (
            f"it turns the order of the stable version's top 10 round: drift {candidate.drift:.2f} "
            f"({candidate.ranked} pages; 1 is chance, 2 the reverse), and {bounds.drift:g} is the most"
        )
    return ""


def _beyond_chance(samples: int, hits: int, rate: float) -> bool:
    return hits >= _MIN_BAD and _by_chance(samples, hits, min(1.0, rate)) < _CHANCE


def _by_chance(calls: int, hits: int, rate: float) -> float:
    """The chance of `hits` or more among `calls`, each a hit with probability `rate` (binomial tail)."""
    if hits <= calls * rate or rate >= 1:
        return 1.0
    if rate <= 0:
        return 0.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    total = 0.0
    for k in range(hits, calls + 1):
        log_term = (
            math.lgamma(calls + 1)
            - math.lgamma(k + 1)
            - math.lgamma(calls - k + 1)
            + k * log_rate
            + (calls - k) * log_rest
        )
        term = math.exp(log_term)
        total += term
        if term < total * 1e-12:  # terms only fall from here: hits lie above the mean
            break
    return total
