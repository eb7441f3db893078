"""What a run of a load generator saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from client.riptide.v1 import recommender_pb2 as pb

STAGES = ("queue", "features", "model", "page", "total")


@dataclass(frozen=True, slots=True)
class Observed:
    """The calls of one run. What a generator cannot see is None, never 0."""

    generator: str
    """Which one, and between how many bodies it varies."""
    answered: int
    """Calls that were answered, whatever with."""
    failed: int
    """Calls with an error, or without an answer in time."""
    seconds: float
    mean_ms: float | None
    p50_ms: float
    p99_ms: float
    cores: float
    """That the generator itself used."""
    offered_per_s: float | None = None
    """Open loop: the rate at which calls were to leave. Latencies then count from when each was to leave."""
    late_p99_ms: float | None = None
    """Open loop: how late calls left, by the generator's own fault."""
    looked_at: int = 0
    """Answers that were parsed afterwards."""
    degraded: int = 0
    """Of these."""
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Means of the `stages_ms` of these."""

    @property
    def per_s(self) -> float:
        """Calls answered per second."""
        return self.answered / self.seconds


def percentiles_ms(latencies_s: ArrayLike) -> tuple[float, float, float]:
    """Mean, p50 and p99 in milliseconds; NaN if nothing was answered."""
    values = np.asarray(latencies_s, float) * 1000
    if not values.size:
        return (float("nan"),) * 3
    p50, p99 = np.percentile(values, [50, 99])
    return float(values.mean()), float(p50), float(p99)


def looked_at(pages: Sequence[bytes]) -> dict[str, object]:
    """The fields of `Observed` that come from serialized answers to `Recommend`."""
    answers = [pb.RecommendResponse.FromString(page) for page in pages]
    degraded = sum(answer.degraded != 0 or not answer.items for answer in answers)
    stages = {}
    if answers and any(answer.HasField("stages_ms") for answer in answers):
        stages = {
            name: float(np.mean([getattr(answer.stages_ms, name) for answer in answers])) for name in STAGES
        }
    return {"looked_at": len(answers), "degraded": degraded, "stages_ms": stages}
