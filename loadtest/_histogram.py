"""Times in buckets, each a hundredth wider than the one before: those of several processes add up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

_LOG_GROWTH = math.log(1.01)
_LEAST_MS = 1e-3


class Histogram:
    """Milliseconds. A percentile is off by half of a hundredth of itself at most.

    Finer than that of `features.figures`, whose tenths do to hold versions against each other, but not to say
    whether a bound is kept; and without numpy on the way of each call.
    """

    __slots__ = ("buckets",)

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        """`buckets`: what another one's `buckets` are."""
        self.buckets: Counter[int] = Counter(buckets)

    def add(self, ms: float) -> None:
        """Counts one time; what is under a microsecond, and what is negative, as a microsecond."""
        self.buckets[round(math.log(max(ms, _LEAST_MS)) / _LOG_GROWTH)] += 1

    def update(self, other: Histogram) -> None:
        """Adds all of another one's."""
        self.buckets.update(other.buckets)

    @property
    def count(self) -> int:
        """How many times there are."""
        return self.buckets.total()

    def percentile(self, share: float) -> float:
        """The time that `share` (over 0, up to 1) of all do not exceed, ms; 0 if there is none."""
        rank, below = math.ceil(share * self.count), 0
        for bucket in sorted(self.buckets):
            below += self.buckets[bucket]
            if below >= rank:
                return math.exp(bucket * _LOG_GROWTH)
        return 0.0
