"""A run and its verdict: all that is known of it at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest._histogram import Histogram
from loadtest._marks import Mark
from loadtest._parts import Figures, Moment, Part, between, moments, parts
from loadtest._tally import RECOMMEND, Row, Tally, is_degraded
from loadtest.slo import ServiceLevel

_BUSY = 0.9
"""Of the time: a generator whose users' thread was at work for more of some seconds is what is measured."""
_LATE, _LATE_MS = 0.25, 10.0
"""The share of the p99 that pages may leave late (what sends late receives late), beyond a timer's grain."""

PASS, FAIL, INVALID = 0, 1, 3
"""Exit codes. 2 is for what cannot be started."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known at the end of a run."""

    users: int
    rate_per_user: float
    """0: a closed loop."""
    seconds: float
    pages: Figures
    """All answered calls of Recommend."""
    rows: list[tuple[Row, Figures]]
    calls: int
    failed: int
    degraded: int
    """Pages."""
    offered: int | None
    late_p99_ms: float
    generator: list[float]
    """Share of a core that each process of the generator used."""
    busiest: float
    """The largest share of some seconds in which a process' users were at work all the time."""
    defects: list[str]
    """What went wrong with the generator itself."""
    moments: list[Moment]
    parts: list[Part]
    """Tenths of a run with a shape."""
    ended_at_knee: bool
    marks: list[Mark]
    """What others said happened since it began."""
    marks_not_read: list[str]
    between: list[Part]
    """The run, cut at the marks."""
    begun: int
    """Unix seconds."""
    level: ServiceLevel

    @property
    def error_rate(self) -> float:
        """Of all calls."""
        return self.failed / self.calls if self.calls else 1.0

    @property
    def degraded_rate(self) -> float:
        """Of all pages."""
        return self.degraded / self.pages.count if self.pages.count else 0.0

    @property
    def achieved(self) -> float | None:
        """Of the pages that were due; None in a closed loop."""
        return None if self.offered is None else self.pages.count / max(1, self.offered)

    @property
    def breaches(self) -> list[str]:
        """A line for each bound of the service level that is broken."""
        return self.level.breaches(
            p50_ms=self.pages.p50_ms,
            p99_ms=self.pages.p99_ms,
            error_rate=self.error_rate,
            degraded_rate=self.degraded_rate,
            achieved=self.achieved,
        )

    @property
    def flaws(self) -> list[str]:
        """Why the figures are those of the generator and not of what it calls; none: they are not."""
        found = list(self.defects)
        if not self.calls:
            found.append("nothing was asked for")
        if self.busiest > _BUSY:
            found.append(
                f"the load generator was at work for {self.busiest:.0%} of some seconds, its limit: "
                "take --processes, a longer --think-s or a lower rate"
            )
        elif self.pages.count and self.late_p99_ms > max(_LATE_MS, _LATE * self.pages.p99_ms):
            found.append(
                f"the load generator itself asked for pages {self.late_p99_ms:.1f} ms late (p99): "
                "the machine has no time for it"
            )
        return found

    @property
    def code(self) -> int:
        """Locust's exit code."""
        return INVALID if self.flaws else FAIL if self.breaches else PASS


def make_report(
    tally: Tally,
    level: ServiceLevel,
    *,
    users: int,
    rate_per_user: float,
    share: Callable[[float], float] | None = None,
    planned_s: float | None = None,
    ended_at_knee: bool = False,
    marks: Sequence[Mark] = (),
    marks_not_read: Sequence[str] = (),
    defects: Sequence[str] = (),
) -> Report:
    """The report of a run with `users` at most.

    With a shape, `share` is how many of them there are when, and `planned_s` how long it was to be. Marks
    from before the run are left out: they are of an earlier one.
    """
    begun = min(tally.seconds, default=0)
    seen = [mark for mark in marks if mark.at >= begun]
    seconds = max((process.wall_s for process in tally.processes.values()), default=0.0)
    answered = Histogram()
    for row, histogram in tally.latency.items():
        if row.method == RECOMMEND and not row.failed:
            answered.update(histogram)
    return Report(
        users=users,
        rate_per_user=rate_per_user,
        seconds=seconds,
        pages=Figures.of(answered, seconds),
        rows=[
            (row, Figures.of(histogram, seconds))
            for row, histogram in sorted(tally.latency.items(), key=lambda entry: str(entry[0]))
        ],
        calls=sum(histogram.count for histogram in tally.latency.values()),
        failed=sum(histogram.count for row, histogram in tally.latency.items() if row.failed),
        degraded=sum(
            histogram.count
            for row, histogram in tally.latency.items()
            if row.method == RECOMMEND and is_degraded(row.outcome)
        ),
        offered=tally.offered if rate_per_user > 0 else None,
        late_p99_ms=tally.late.percentile(0.99),
        generator=[process.share for process in tally.processes.values()],
        busiest=max((process.busiest for process in tally.processes.values()), default=0.0),
        defects=list(defects),
        moments=moments(tally),
        parts=parts(tally, users, share, planned_s) if share else [],
        ended_at_knee=ended_at_knee,
        marks=seen,
        marks_not_read=list(marks_not_read),
        between=between(tally, seen) if seen else [],
        begun=begun,
        level=level,
    )
