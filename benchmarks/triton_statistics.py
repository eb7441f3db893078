"""Where Triton's time goes, from its statistics
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError
from benchmarks.processes import http_get

_PARTS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since Triton started, or between two moments; seconds are sums over requests."""

    requests: int
    executions: int
    """Runs of the model: several requests may share one."""
    rows: int
    seconds: dict[str, float]
    """By part: `success` (all of a request), `queue`, `compute_input`, `compute_infer`, `compute_output`."""

    def __sub__(self, earlier: Statistics) -> Statistics:
        return Statistics(
            self.requests - earlier.requests,
            self.executions - earlier.executions,
            self.rows - earlier.rows,
            {part: self.seconds[part] - earlier.seconds[part] for part in _PARTS},
        )

    def mean_ms(self, part: str) -> float:
        """Milliseconds of a part in one request; NaN without a request."""
        return self.seconds[part] * 1000 / self.requests if self.requests else float("nan")


def parse(said: bytes) -> Statistics:
    """The sum over the versions of a model.

    Raises:
        BenchmarkError: it is no such answer.
    """
    try:
        versions = json.loads(said)["model_stats"]
        return Statistics(
            sum(int(one["inference_stats"]["success"]["count"]) for one in versions),
            sum(int(one["execution_count"]) for one in versions),
            sum(int(one["inference_count"]) for one in versions),
            {part: sum(int(one["inference_stats"][part]["ns"]) for one in versions) / 1e9 for part in _PARTS},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"Triton's statistics are not understood: {error!r}") from error


def read(port: int, model: str) -> Statistics:
    """Those of a model of the Triton with this HTTP port.

    Raises:
        BenchmarkError: it does not say.
    """
    said = http_get(port, f"/v2/models/{model}/stats")
    if said is None:
        raise BenchmarkError(f"Triton on port {port} gives no statistics of {model}")
    return parse(said)
