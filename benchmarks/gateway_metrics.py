"""What a gateway counts, read from its `/metrics`: the difference between two moments."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.errors import BenchmarkError
from benchmarks.processes import http_get

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([-+.\deE]+|\+Inf|NaN)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
FLUSH_S = 0.6
"""A worker puts its counts where a scrape finds them four times a second."""

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples by name and labels."""

    samples: Mapping[tuple[str, Labels], float]

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts({key: value - earlier.samples.get(key, 0.0) for key, value in self.samples.items()})

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels; 0 if there are none."""
        wanted = set(labels.items())
        return sum(value for (own, has), value in self.samples.items() if own == name and wanted <= has)

    def quantile(self, name: str, share: float) -> float | None:
        """A quantile of the histogram `name`, in its unit, in a straight line within its bucket.

        None if it has no samples. Beyond the last bound that bound is given: it is at least that.
        """
        buckets: dict[float, float] = {}
        for (own, labels), value in self.samples.items():
            if own == f"{name}_bucket":
                bound = float(dict(labels)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        if not buckets or not buckets.get(float("inf")):
            return None
        wanted = share * buckets[float("inf")]
        below, lower = 0.0, 0.0
        for bound, count in sorted(buckets.items()):
            if count >= wanted:
                if bound == float("inf"):
                    break
                return lower + (bound - lower) * (wanted - below) / (count - below)
            below, lower = count, bound
        return lower


def parse(text: str) -> Counts:
    """Samples of Prometheus' text format."""
    samples: dict[tuple[str, Labels], float] = {}
    for line in text.splitlines():
        if found := _SAMPLE.match(line):
            name, labels, value = found.groups()
            samples[name, frozenset(_LABEL.findall(labels or ""))] = float(value)
    return Counts(samples)


def read(port: int) -> Counts:
    """What the gateway with this HTTP port has counted, with all that it counted until now.

    Raises:
        BenchmarkError: it does not say.
    """
    time.sleep(FLUSH_S)
    said = http_get(port, "/metrics")
    if said is None:
        raise BenchmarkError(f"the gateway's /metrics on port {port} does not answer")
    return parse(said.decode())
