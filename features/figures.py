"""What gateways report of each model version: counters and latency histograms that can be added up.

Each worker writes what it has counted since it began, as one value of its own in the online store, twice a
second. Whoever wants the figures of a window takes the difference of two looks, worker by worker, and adds
those up: no figure is lost when a worker is replaced, and none is counted twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

BOUNDS_MS: NDArray[np.float64] = 0.1 * np.power(1.1, np.arange(140))
"""Upper bounds of a `Histogram`'s buckets: 10 % apart, 0.1 ms to 57 s. One more is for what is beyond."""

_FORMAT = 2


class FiguresError(Exception):
    """A value that is no report of a known form."""


class Histogram:
    """Counts of latencies in the buckets of `BOUNDS_MS`. Quantiles are right to 10 %."""

    __slots__ = ("counts",)

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(BOUNDS_MS) + 1, np.int64) if counts is None else counts

    def add(self, latencies_ms: Iterable[float]) -> None:
        """Counts latencies, milliseconds."""
        np.add.at(self.counts, np.searchsorted(BOUNDS_MS, np.fromiter(latencies_ms, np.float64)), 1)

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """Upper bound of the bucket that holds the q-quantile, milliseconds; NaN if nothing was counted."""
        if not (total := self.total):
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self.counts), q * total))
        return float(BOUNDS_MS[min(place, len(BOUNDS_MS) - 1)])

    def above(self, limit_ms: float) -> int:
        """How many were certainly longer than `limit_ms`: those in buckets that begin there or later."""
        return int(self.counts[int(np.searchsorted(BOUNDS_MS, limit_ms)) + 1 :].sum())

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    def __sub__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts - other.counts)

    def sparse(self) -> dict[str, int]:
        """Bucket → count of the buckets that are not empty, for JSON."""
        return {str(place): int(self.counts[place]) for place in np.flatnonzero(self.counts)}

    @classmethod
    def from_sparse(cls, counts: Mapping[str, int]) -> Histogram:
        """The inverse of `sparse`.

        Raises:
            IndexError: there is no such bucket.
        """
        histogram = cls()
        for place, count in counts.items():
            if int(place) < 0:  # numpy would count from the end
                raise IndexError(f"bucket {place}")
            histogram.counts[int(place)] = count
        return histogram


@dataclass(slots=True)
class VersionFigures:
    """What was counted of one version. Every field adds up."""

    calls: int = 0
    """Recommend calls that it answered or failed; those that an operator pinned are left out."""
    errors: int = 0
    """Of these, those that it failed: an error, no answer in time, or one that is not finite."""
    degraded: int = 0
    """Of these, those whose caller got a fallback page. The others were answered by the stable version."""
    cold: int = 0
    """Calls beside those, of users whose history holds only items that it does not know, or events of types
    that it ignores (`event_weights` of 0): a fallback page."""
    latency: Histogram = field(default_factory=Histogram)
    """From a call's arrival to its answer, of the calls that it answered."""
    batches: int = 0
    """Requests to Triton for those calls. The calls of one share its fate: only batches are independent."""
    failed_batches: int = 0
    model_cached: Histogram = field(default_factory=Histogram)
    """Time in Triton of each batch that was answered and in which no vector had to be encoded."""
    model_encoded: Histogram = field(default_factory=Histogram)
    """The same, of the other batches."""
    shadow_calls: int = 0
    """Requests that it answered, or failed, unseen."""
    shadow_errors: int = 0
    shadow_dropped: int = 0
    """Requests that were to be answered unseen and were not, because there was no room for it."""
    shadow_cold: int = 0
    """Requests that were to be answered unseen, of such users."""
    shadow_batches: int = 0
    """Requests to Triton for the shadow calls."""
    failed_shadow_batches: int = 0
    pairs: int = 0
    """Shadow answers that were compared with the live one for the same request."""
    overlap_sum: float = 0.0
    """Sum over the pairs of the share of the live page's top 10 that is in the shadow's."""
    ranked: int = 0
    """Pairs of which both top 10s hold the same two items or more."""
    correlation_sum: float = 0.0
    """Sum over those of Spearman's rank correlation of the items that both hold, -1 to 1."""

    def __add__(self, other: VersionFigures) -> VersionFigures:
        return VersionFigures(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: VersionFigures) -> VersionFigures:
        return VersionFigures(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def plain(self) -> dict[str, Any]:
        """All of it as values of JSON."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_plain(cls, figures: Mapping[str, Any]) -> VersionFigures:
        """The inverse of `plain`.

        Raises:
            FiguresError, or what Python raises: they are no figures of this release.
        """
        return cls(**{name: _figure(name, figure) for name, figure in figures.items()})

    @property
    def overlap(self) -> float:
        """Mean share of the live top 10 that is in the shadow's; NaN without a pair."""
        return self.overlap_sum / self.pairs if self.pairs else float("nan")

    @property
    def drift(self) -> float:
        """How far the items that both top 10s hold stand in another order, 1 - the mean rank correlation.

        0 is the same order, 1 that of chance, 2 the reverse; NaN without a pair that shares two items. It
        knows no scores, whose scales are the versions' own.
        """
        return 1 - self.correlation_sum / self.ranked if self.ranked else float("nan")


_NOTHING = VersionFigures()


@dataclass(frozen=True, slots=True)
class Report:
    """All that one worker says of itself."""

    at: float
    """When it was written, Unix seconds."""
    revision: int
    """Revision of the rollout record that the worker obeys; 0 before it has seen one."""
    ready: frozenset[int]
    """Versions that it could call."""
    refused: Mapping[int, str]
    """Versions that are ready in Triton and that it cannot call, with the reason."""
    versions: Mapping[int, VersionFigures]
    """Since the worker began."""

    def encode(self) -> bytes:
        """The value that is stored."""
        return json.dumps(
            {
                "format": _FORMAT,
                "at": self.at,
                "revision": self.revision,
                "ready": sorted(self.ready),
                "refused": {str(version): reason for version, reason in self.refused.items()},
                "versions": {str(version): figures.plain() for version, figures in self.versions.items()},
            },
            separators=(",", ":"),
        ).encode()


def decode(value: bytes) -> Report:
    """The report in a stored value.

    Raises:
        FiguresError: it is none of this format.
    """
    try:
        stored = json.loads(value)
        if stored["format"] != _FORMAT:
            raise FiguresError(f"a gateway's report has format {stored['format']}, not {_FORMAT}")
        return Report(
            at=float(stored["at"]),
            revision=int(stored["revision"]),
            ready=frozenset(map(int, stored["ready"])),
            refused={int(version): str(reason) for version, reason in stored["refused"].items()},
            versions={
                int(version): VersionFigures.from_plain(figures)
                for version, figures in stored["versions"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise FiguresError(f"not a gateway's report: {error!r}") from error


def _figure(name: str, value: Any) -> Any:
    if isinstance(getattr(_NOTHING, name), Histogram):
        return Histogram.from_sparse(value)
    if not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}")
    return value


def _plain(figure: Histogram | float) -> object:
    return figure.sparse() if isinstance(figure, Histogram) else figure
