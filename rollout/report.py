"""What an experiment has shown: of the users of each arm, how many clicked and how many converted.

Users were split, so users are counted: a user counts once, with what they did after they first met their
arm. The intervals are Wilson's for a share, and Newcombe's (method 10, from the two Wilson intervals) for the
difference of two: R. G. Newcombe, Statistics in Medicine 17 (1998) 857–872 and 873–890.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from features.control import Exposure
from features.record import UserRecord
from features.schema import EventType
from features.store import FeatureStore

CLICKS = frozenset({EventType.CLICK, EventType.PLAY, EventType.READ})
CONVERSIONS = frozenset({EventType.PURCHASE})

_Z = 1.959964
"""Standard normal quantile of a 95 % interval."""
_USERS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `total` users."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; NaN of nobody."""
        return self.hits / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval (Wilson); 0 to 1 of nobody."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        middle = p + _Z**2 / (2 * n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
        scale = 1 + _Z**2 / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def difference(treatment: Share, control: Share) -> tuple[float, float, float]:
    """Treatment minus control, and the 95 % confidence interval of that (Newcombe)."""
    p, q = treatment.value, control.value
    (p_low, p_high), (q_low, q_high) = treatment.interval, control.interval
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    return p - q, low, high


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of an experiment."""

    name: str
    clicked: Share
    converted: Share


async def report(
    store: FeatureStore,
    experiment: str,
    *,
    until: float | None = None,
    clicks: Collection[EventType] = CLICKS,
    conversions: Collection[EventType] = CONVERSIONS,
) -> list[Arm]:
    """The arms of an experiment by name; none if nobody has met it.

    Args:
        store: where exposures and events are.
        experiment: its name.
        until: when it ended, Unix seconds: what users did later does not count. None: it runs.
        clicks: event types of which one makes a user one who clicked.
        conversions: likewise, who converted.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    exposures = await store.control.exposures(experiment)
    counts: dict[str, list[int]] = {}
    for start in range(0, len(exposures), _USERS_AT_ONCE):
        part = exposures[start : start + _USERS_AT_ONCE]
        records = await store.read([exposure.user_id for exposure in part])
        for exposure, record in zip(part, records, strict=True):
            count = counts.setdefault(exposure.arm, [0, 0, 0])
            count[0] += 1
            count[1] += _did(record, exposure, until, clicks)
            count[2] += _did(record, exposure, until, conversions)
    return [
        Arm(name, Share(clicked, users), Share(converted, users))
        for name, (users, clicked, converted) in sorted(counts.items())
    ]


def _did(record: UserRecord, exposure: Exposure, until: float | None, types: Collection[EventType]) -> bool:
    wanted: Sequence[int] = [int(kind) for kind in types]
    in_time = record.times >= exposure.at
    if until is not None:
        in_time &= record.times <= until
    return bool((np.isin(record.types, wanted) & in_time).any())
