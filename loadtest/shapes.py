"""How the number of users changes in a run: `--shape`, with -u as the most there are, -t as how long it is.

`steady` is what Locust does by itself. In an open loop the rate changes as the number of users does.
Nothing of Locust is imported here: that would patch the standard library of whoever imports this.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_STEPS = 10


def ramp(part: float) -> float:
    """Ten equal steps up."""
    return (1 + math.floor(part * _STEPS)) / _STEPS


def spike(part: float) -> float:
    """A fifth, and in the middle fifth of the time five times as many."""
    return 1.0 if 0.4 <= part < 0.6 else 0.2


def soak(part: float) -> float:
    """All, all the time: how the end differs from the beginning is in the summary's lines."""
    return 1.0


def day(part: float) -> float:
    """A day, from four in the morning: a fifth at the least, all in the evening, and half at lunch."""
    hour = (4 + 24 * part) % 24
    lunch, evening = (math.exp(-(((hour - at) / wide) ** 2)) for at, wide in ((12.5, 2.5), (20.5, 2.5)))
    return min(1.0, 0.2 + 0.3 * lunch + 0.8 * evening)


SHAPES: dict[str, Callable[[float], float] | None] = {
    "steady": None,
    "ramp": ramp,
    "spike": spike,
    "soak": soak,
    "day": day,
}
"""Name → part of the run that is over, 0 to 1 → share of the users; None leaves it to Locust."""
