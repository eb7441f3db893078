"""What a scenario hands in: what was measured round by round, and which ratios count.

Shared machines are faster at one moment than at the next. So the servers of a scenario are measured in turn,
several rounds over, and a ratio is taken within a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.observed import Observed


@dataclass(frozen=True, slots=True)
class Measured:
    """One server under one load in one round."""

    round: int
    server: str
    load: str
    observed: Observed
    cpu_us: dict[str, float] = field(default_factory=dict)
    """CPU per call, µs, by process."""
    failed: int | None = None
    """Counted by the server itself, where the generator cannot tell."""
    degraded: int | None = None
    more: dict[str, float] = field(default_factory=dict)
    """Further figures by name, which says the unit."""

    @property
    def failed_calls(self) -> int:
        """What the server failed is what our own generator has seen fail: not to be counted twice."""
        return max(self.failed or 0, self.observed.failed)

    def figure(self, name: str) -> float | None:
        """A figure by its name: of `more`, of `cpu_us`, or of `observed`; None if it was not measured."""
        if name in self.more:
            return self.more[name]
        if name in self.cpu_us:
            return self.cpu_us[name]
        value = getattr(self.observed, name, None)
        return None if value is None else float(value)


BAD_SHARE = 0.001
"""Of the calls of a row: if more failed, or were degraded, its figures keep no bound."""


def too_many_bad(rows: Sequence[Measured]) -> bool:
    """Whether more than `BAD_SHARE` of the calls failed, or of the answers were degraded."""
    calls = sum(m.observed.answered + m.observed.failed for m in rows)
    failed = sum(m.failed_calls for m in rows)
    # Where the server does not count them: of the answers that were looked at.
    counted = [(m.degraded, m.observed.answered) for m in rows if m.degraded is not None]
    seen = [(m.observed.degraded, m.observed.looked_at) for m in rows if m.degraded is None]
    degraded, answers = map(sum, zip(*counted, *seen, strict=True)) if rows else (0, 0)
    return failed > BAD_SHARE * calls or degraded > BAD_SHARE * answers


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{rounded(self.median)} ({rounded(self.lowest)}–{rounded(self.highest)})"


def rounded(value: float) -> str:
    """With three digits, or as a whole number."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """`figure` of one row, divided by that of another."""

    label: str
    of: tuple[str, str]
    """Server and load."""
    by: tuple[str, str]
    figure: str = "per_s"
    at_least: float | None = None
    at_most: float | None = None

    def spread(self, measured: Sequence[Measured]) -> Spread | None:
        """Over the rounds that have both; None if there are none."""
        of, by = ({m.round: m for m in measured if (m.server, m.load) == row} for row in (self.of, self.by))
        ratios = []
        for number in sorted(of.keys() & by.keys()):
            above, below = of[number].figure(self.figure), by[number].figure(self.figure)
            if above is not None and below:
                ratios.append(above / below)
        return spread(ratios)

    @property
    def wanted(self) -> str:
        """The bound in words, empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}" if self.at_most is not None else ""

    def met(self, value: float) -> bool | None:
        """Whether a value keeps the bound; None without one."""
        if self.at_least is not None:
            return value >= self.at_least
        return value <= self.at_most if self.at_most is not None else None

    def verdict(self, measured: Sequence[Measured]) -> bool | None:
        """Whether the median keeps the bound and both rows have few bad calls; None without either."""
        found = self.spread(measured)
        met = self.met(found.median) if found else None
        rows = ([m for m in measured if (m.server, m.load) == row] for row in (self.of, self.by))
        return met and not any(map(too_many_bad, rows))


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of growth.png."""

    name: str
    x_label: str
    points: Sequence[tuple[float, str, str]]
    """x, and the server and load whose figure is y."""
    figure: str = "p50_ms"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of its own, for what is no row of a server under load."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Section:
    """What a scenario found."""

    title: str
    measured: list[Measured] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Why something was not measured."""
    more: list[str] = field(default_factory=list)
    """Names of figures of `Measured.more` that get a column."""

    def rows(self) -> list[tuple[str, str]]:
        """Servers and loads, in the order in which they were first measured."""
        return list(dict.fromkeys((m.server, m.load) for m in self.measured))

    def of(self, server: str, load: str) -> list[Measured]:
        """All rounds of a row."""
        return [m for m in self.measured if (m.server, m.load) == (server, load)]

    def spread(
        self, server: str, load: str, figure: str | Callable[[Measured], float | None]
    ) -> Spread | None:
        """A figure of a row over the rounds; None if it was not measured."""
        get = figure if callable(figure) else lambda m: m.figure(figure)
        return spread([value for m in self.of(server, load) if (value := get(m)) is not None])
