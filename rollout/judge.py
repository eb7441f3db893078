"""Whether a candidate may go on, beside what the stable version did in the same time.

A figure from few calls proves little, so rates are not compared as they stand. A candidate is in breach when
its failures, or its slow calls, are more than the bound allows *beyond chance*: when as many or more would
come up less than once in 10,000 looks if it kept the bound exactly (one-sided exact binomial test). And it
passes only if it has answered `Bounds.min_calls` calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from features.figures import Histogram, VersionFigures
from rollout.state import Bounds

_CHANCE = 1e-4
_MIN_PAIRS = 20
"""Pairs of answers before their mean overlap and score are compared with a bound."""
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
    calls = candidate.calls + candidate.shadow_calls
    errors = candidate.errors + candidate.shadow_errors
    usual = stable.errors / stable.calls if stable.calls else 0.0
    if _by_chance(calls, errors, min(1.0, usual + bounds.error_rate)) >= _CHANCE:
        return ""
    return (
        f"{errors} of {calls} calls failed ({errors / calls:.2%}); of the stable version's {usual:.2%}, "
        f"and {bounds.error_rate:.2%} more is the bound"
    )


def _too_slow(stable: VersionFigures, candidate: VersionFigures, bounds: Bounds) -> str:
    # Like with like: a batch in which a vector has to be encoded takes longer than one in which none has.
    for kind in ("model_cached", "model_encoded"):
        usual: Histogram = getattr(stable, kind)
        own: Histogram = getattr(candidate, kind)
        if usual.total < bounds.min_calls:
            continue
        for quantile, name in _QUANTILES:
            limit_ms = bounds.latency_ratio * usual.quantile(quantile)
            slow = own.above(limit_ms)
            if _by_chance(own.total, slow, 1 - quantile) < _CHANCE:
                return (
                    f"{slow} of {own.total} calls took Triton longer than {limit_ms:.1f} ms, "
                    f"{bounds.latency_ratio:g} times the {name} of the stable version"
                )
    return ""


def _too_different(candidate: VersionFigures, bounds: Bounds) -> str:
    if candidate.pairs < _MIN_PAIRS:
        return ""
    if candidate.overlap < bounds.overlap:
        return (
            f"its top 10 holds {candidate.overlap:.2f} of the stable version's ({candidate.pairs} pages), "
            f"and {bounds.overlap:g} is the least"
        )
    if candidate.drift > bounds.drift:
        return (
            f"its mean score lies {candidate.drift:.1f} standard deviations from the stable version's "
            f"({candidate.pairs} pages), and {bounds.drift:g} is the most"
        )
    return ""


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
