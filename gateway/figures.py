"""What this worker counts of each version, for whoever runs a rollout.

As in `metrics`, a figure is appended to a list on the request path, nothing more, and `flush` counts what has
gathered: numpy per call is too slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from features.figures import Histogram, VersionFigures

_MOST_VERSIONS = 16


@dataclass(slots=True)
class _Counted:
    """The figures of one version, and the milliseconds that are not in their histograms yet."""

    figures: VersionFigures = field(default_factory=VersionFigures)
    used: bool = False
    """Whether anything was counted since the last flush."""
    latency: list[float] = field(default_factory=list)
    model_cached: list[float] = field(default_factory=list)
    model_encoded: list[float] = field(default_factory=list)

    def flush(self) -> None:
        """Puts the milliseconds into their histograms."""
        for name in ("latency", "model_cached", "model_encoded"):
            gathered: list[float] = getattr(self, name)
            if gathered:
                histogram: Histogram = getattr(self.figures, name)
                histogram.add(gathered)
                gathered.clear()


class Figures:
    """Counts since the worker began. Of the versions used last, so that many rollouts do not pile up.

    Calls that an operator pinned, and batches of nothing else, are not to be counted here.
    """

    def __init__(self) -> None:
        self._versions: dict[int, _Counted] = {}  # the one used last comes last, as of the last flush

    def answered(self, version: int, latency_ms: Sequence[float]) -> None:
        """Counts calls that the version answered."""
        if latency_ms:
            counted = self._of(version)
            counted.figures.calls += len(latency_ms)
            counted.latency.extend(latency_ms)

    def failed(self, version: int) -> None:
        """Counts a call that the version failed, whoever answers it then."""
        figures = self._of(version).figures
        figures.calls += 1
        figures.errors += 1

    def degraded(self, version: int) -> None:
        """Counts one of the failed calls whose caller gets a fallback page."""
        self._of(version).figures.degraded += 1

    def cold(self, version: int) -> None:
        """Counts a call of a user of whose items, of which there are some, the version knows none."""
        self._of(version).figures.cold += 1

    def batch_answered(self, version: int, model_ms: float, *, encoded: bool) -> None:
        """Counts a batch and the time that Triton took for it. `encoded`: a vector of it had to be."""
        counted = self._of(version)
        counted.figures.batches += 1
        (counted.model_encoded if encoded else counted.model_cached).append(model_ms)

    def batch_failed(self, version: int) -> None:
        """Counts a batch that the version failed; its calls are counted by `failed`."""
        figures = self._of(version).figures
        figures.batches += 1
        figures.failed_batches += 1

    def shadow_dropped(self, version: int, rows: int) -> None:
        """Counts requests for which there was no room."""
        self._of(version).figures.shadow_dropped += rows

    def shadow_cold(self, version: int, rows: int) -> None:
        """Counts requests of users of whose items the version knows none."""
        self._of(version).figures.shadow_cold += rows

    def shadow_failed(self, version: int, rows: int) -> None:
        """Counts requests that the version failed unseen, in one call of Triton."""
        figures = self._of(version).figures
        figures.shadow_calls += rows
        figures.shadow_errors += rows
        figures.shadow_batches += 1
        figures.failed_shadow_batches += 1

    def shadow_answered(self, version: int, rows: int) -> None:
        """Counts requests that the version answered unseen, in one call of Triton."""
        figures = self._of(version).figures
        figures.shadow_calls += rows
        figures.shadow_batches += 1

    def compared(self, version: int, *, overlap: float, correlation: float | None) -> None:
        """Counts one unseen answer beside the live one; see `features.figures.VersionFigures`."""
        figures = self._of(version).figures
        figures.pairs += 1
        figures.overlap_sum += overlap
        if correlation is not None:
            figures.ranked += 1
            figures.correlation_sum += correlation

    def flush(self) -> dict[int, VersionFigures]:
        """The figures of each version, with all that was counted until now."""
        for version, counted in list(self._versions.items()):
            counted.flush()
            if counted.used:
                counted.used = False
                self._versions[version] = self._versions.pop(version)
        return {version: counted.figures for version, counted in self._versions.items()}

    def _of(self, version: int) -> _Counted:
        counted = self._versions.get(version)
        if counted is None:
            while len(self._versions) >= _MOST_VERSIONS:
                del self._versions[next(iter(self._versions))]
            counted = self._versions[version] = _Counted()
        counted.used = True
        return counted
