"""A run in time: its parts, those between marks, and the moments in which something went wrong."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loadtest._histogram import Histogram
from loadtest._marks import Mark
from loadtest._tally import FAILED, Tally, is_degraded
from loadtest.slo import ServiceLevel

_PARTS = 10
_GAP_S = 2
"""What goes wrong again within this time goes on."""
_KNOWN_AFTER_S = 4.0
"""Answers take a while, and workers tell of them every three seconds."""
_IN_A_ROW = 2
"""One part that breaks the level may be a hiccup of the machine."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of calls; milliseconds are from when they were due."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, histogram: Histogram, seconds: float) -> Figures:
        """Those of `histogram`, which took `seconds`."""
        per_s = histogram.count / seconds if seconds > 0 else 0.0
        return cls(histogram.count, per_s, histogram.percentile(0.5), histogram.percentile(0.99))


@dataclass(frozen=True, slots=True)
class Moment:
    """From when to when pages were due that had this outcome; Unix seconds, the last one included."""

    outcome: str
    first: int
    last: int
    count: int
    of: int
    """All pages of that time."""


@dataclass(frozen=True, slots=True)
class Part:
    """The calls that were due from one second to another."""

    first: int
    end: int
    """Unix seconds; `end` itself is no longer of it."""
    pages: Figures
    degraded: int
    failed: int
    """Pages."""
    others: Figures
    """Calls of all other methods, answered or not."""
    others_failed: int
    users: int | None = None
    """That there were to be, with a shape."""


def moments(tally: Tally) -> list[Moment]:
    """When pages were degraded or failed, each kind by itself, the earliest first."""
    found = []
    seen = {outcome for second in tally.seconds.values() for outcome in second.outcomes}
    for outcome in seen:
        if not (is_degraded(outcome) or outcome.startswith(FAILED)):
            continue
        spans: list[list[int]] = []
        for at in sorted(tally.seconds):
            if tally.seconds[at].outcomes[outcome]:
                if spans and at - spans[-1][1] <= _GAP_S:
                    spans[-1][1] = at
                else:
                    spans.append([at, at])
        for first, last in spans:
            then = [tally.seconds[at].outcomes for at in range(first, last + 1) if at in tally.seconds]
            count = sum(outcomes[outcome] for outcomes in then)
            found.append(Moment(outcome, first, last, count, sum(outcomes.total() for outcomes in then)))
    return sorted(found, key=lambda moment: (moment.first, moment.outcome))


def parts(
    tally: Tally, users: int, share: Callable[[float], float], planned_s: float | None = None
) -> list[Part]:
    """The tenths (of a short run its seconds) of a run with a shape, as far as they have begun.

    `planned_s` is how long it is to be; None: as long as it was. Tenths of what a run has come to would be no
    steps of its shape if it was ended early.
    """
    if not tally.seconds:
        return []
    begun, end = min(tally.seconds), max(tally.seconds) + 1
    length = planned_s or end - begun
    count = _number_of_parts(length)
    edges = [begun + math.ceil(number * length / count) for number in range(count)] + [math.inf]
    return [
        _part(tally, int(first), int(min(then, end)), max(1, round(users * share((number + 0.5) / count))))
        for number, (first, then) in enumerate(itertools.pairwise(edges))
        if first < end
    ]


def parts_over(tally: Tally, now: float, planned_s: float) -> int:
    """Of how many of those parts all is known at `now`, Unix seconds."""
    if not tally.seconds:
        return 0
    count = _number_of_parts(planned_s)
    return max(0, min(count, int((now - _KNOWN_AFTER_S - min(tally.seconds)) * count / planned_s)))


def _number_of_parts(seconds: float) -> int:
    return max(1, min(_PARTS, int(seconds)))


def between(tally: Tally, marks: Iterable[Mark]) -> list[Part]:
    """The run, cut at the marks in it; the second of a mark belongs to what comes after it."""
    if not tally.seconds:
        return []
    begun, end = min(tally.seconds), max(tally.seconds) + 1
    edges = sorted({begun, *(int(mark.at) for mark in marks if begun < mark.at < end)})
    return [_part(tally, first, then) for first, then in zip(edges, [*edges[1:], end], strict=True)]


def _part(tally: Tally, first: int, end: int, users: int | None = None) -> Part:
    latency, others, outcomes, others_failed = Histogram(), Histogram(), Counter[str](), 0
    for at in range(first, end):
        if at in tally.seconds:
            latency.update(tally.seconds[at].latency)
            others.update(tally.seconds[at].others)
            outcomes.update(tally.seconds[at].outcomes)
            others_failed += tally.seconds[at].others_failed
    failed = sum(count for outcome, count in outcomes.items() if outcome.startswith(FAILED))
    degraded = sum(count for outcome, count in outcomes.items() if is_degraded(outcome))
    # A run begins and ends within a second.
    seconds = min(end, tally.ended) - max(first, tally.begun)
    return Part(
        first,
        end,
        Figures.of(latency, seconds),
        degraded,
        failed,
        Figures.of(others, seconds),
        others_failed,
        users,
    )


def knee(parts: Sequence[Part], level: ServiceLevel) -> Part | None:
    """The last part of a ramp before the level first breaks; None: it breaks at once."""
    kept = None
    for part in parts:
        if _breaks(part, level):
            return kept
        kept = part
    return kept


def is_past_knee(parts: Sequence[Part], level: ServiceLevel) -> bool:
    """Whether the last two parts break the level."""
    last = parts[-_IN_A_ROW:]
    return len(last) == _IN_A_ROW and all(_breaks(part, level) for part in last)


def _breaks(part: Part, level: ServiceLevel) -> bool:
    calls = part.pages.count + part.failed
    breaches = level.breaches(
        p50_ms=part.pages.p50_ms,
        p99_ms=part.pages.p99_ms,
        error_rate=part.failed / calls if calls else 1.0,
        degraded_rate=part.degraded / part.pages.count if part.pages.count else 0.0,
        achieved=None,
    )
    return bool(breaches)
