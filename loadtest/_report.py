"""A run as people and programs read it: figures, verdict, and the moments in which something went wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest._histogram import Histogram
from loadtest._tally import FAILED, FULL, RECOMMEND, Row, Tally
from loadtest.slo import ServiceLevel

_PARTS = 10
_NOTHING_KNOWN = "COLD_START"
"""Not counted as degraded: of a user of whom nothing is known, there is no better page."""
_BUSY = 0.9
"""Of the time: a generator whose users' thread was at work for more of some seconds is what is measured."""
_LATE, _LATE_MS = 0.25, 10.0
"""The share of the p99 that pages may leave late (what sends late receives late), beyond a timer's grain."""
_GAP_S = 2
"""What goes wrong again within this time goes on."""

PASS, FAIL, INVALID = 0, 1, 3
"""Exit codes. 2 is for what cannot be started."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of answers."""

    count: int
    per_s: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, histogram: Histogram, seconds: float) -> Figures:
        """Those of `histogram`, which took `seconds`."""
        per_s = histogram.count / seconds if seconds else 0.0
        return cls(histogram.count, per_s, histogram.percentile(0.5), histogram.percentile(0.99))


@dataclass(frozen=True, slots=True)
class Moment:
    """From when to when pages were due that had this outcome; Unix seconds, the last one included."""

    outcome: str
    first: int
    last: int
    count: int
    of: int
    """All pages of that time."""


@dataclass(frozen=True, slots=True)
class Part:
    """A tenth of a run (a second, of a short one): users there were to be, and its pages."""

    users: int
    pages: Figures
    degraded: int
    failed: int


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
    begun: int
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
    defects: Sequence[str] = (),
) -> Report:
    """The report of a run with `users` at most; with a shape, `share` is how many of them there are when."""
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
            if row.method == RECOMMEND and not row.failed and row.outcome not in (FULL, _NOTHING_KNOWN)
        ),
        offered=tally.offered if rate_per_user > 0 else None,
        late_p99_ms=tally.late.percentile(0.99),
        generator=[process.share for process in tally.processes.values()],
        busiest=max((process.busiest for process in tally.processes.values()), default=0.0),
        defects=list(defects),
        moments=moments(tally),
        parts=parts(tally, users, share) if share else [],
        begun=min(tally.seconds, default=0),
        level=level,
    )


def moments(tally: Tally) -> list[Moment]:
    """When pages were degraded or failed, each kind by itself, the earliest first."""
    found = []
    wrong = {outcome for second in tally.seconds.values() for outcome in second.outcomes}
    for outcome in wrong - {FULL, _NOTHING_KNOWN}:
        spans: list[list[int]] = []
        for at in sorted(tally.seconds):
            if tally.seconds[at].outcomes[outcome]:
                if spans and at - spans[-1][1] <= _GAP_S:
                    spans[-1][1] = at
                else:
                    spans.append([at, at])
        for first, last in spans:
            then = [tally.seconds[at].outcomes for at in range(first, last + 1) if at in tally.seconds]
            count = sum(outcomes[outcome] for outcomes in then)
            found.append(Moment(outcome, first, last, count, sum(outcomes.total() for outcomes in then)))
    return sorted(found, key=lambda moment: (moment.first, moment.outcome))


def parts(tally: Tally, users: int, share: Callable[[float], float]) -> list[Part]:
    """The run in time."""
    if not tally.seconds:
        return []
    begun, length = min(tally.seconds), max(tally.seconds) - min(tally.seconds) + 1
    count = min(_PARTS, length)
    found = []
    for number in range(count):
        latency, outcomes = Histogram(), Counter[str]()
        for at, second in tally.seconds.items():
            if (at - begun) * count // length == number:
                latency.update(second.latency)
                outcomes.update(second.outcomes)
        failed = sum(count for outcome, count in outcomes.items() if outcome.startswith(FAILED))
        degraded = outcomes.total() - failed - outcomes[FULL] - outcomes[_NOTHING_KNOWN]
        there = max(1, round(users * share((number + 0.5) / count)))
        found.append(Part(there, Figures.of(latency, length / count), degraded, failed))
    return found


def knee(parts: Sequence[Part], level: ServiceLevel) -> Part | None:
    """The last part of a ramp before the level first breaks; None: it breaks at once."""
    kept = None
    for part in parts:
        calls = part.pages.count + part.failed
        broken = level.breaches(
            p50_ms=part.pages.p50_ms,
            p99_ms=part.pages.p99_ms,
            error_rate=part.failed / calls if calls else 1.0,
            degraded_rate=part.degraded / part.pages.count if part.pages.count else 0.0,
            achieved=None,
        )
        if broken:
            return kept
        kept = part
    return kept


def as_text(report: Report) -> str:
    """The summary that is printed."""
    loop = "in a closed loop"
    if report.offered is not None:
        loop = f"in an open loop, {report.users * report.rate_per_user:.0f} pages/s due"
    pages = report.pages
    lines = [
        "",
        f"Recommend, {report.users} users {loop}, {report.seconds:.0f} s:",
        f"  answered   {pages.count}: {pages.per_s:.1f} per s, "
        f"p50 {pages.p50_ms:.1f} ms, p99 {pages.p99_ms:.1f} ms",
        f"  degraded   {report.degraded} ({report.degraded_rate:.2%})",
        f"  failed     {report.failed} of {report.calls} calls of every kind ({report.error_rate:.2%})",
    ]
    if report.offered is not None:
        lines.append(f"  achieved   {report.achieved:.1%} of {report.offered} pages that were due")
    shares = ", ".join(f"{share:.0%}" for share in report.generator)
    lines += [
        f"  generator  {shares} of a core, at work for {report.busiest:.0%} of its busiest seconds; "
        f"pages asked for {report.late_p99_ms:.1f} ms late (p99)",
        "",
    ]
    lines += _table(
        ("call", "version", "cohort", "outcome", "calls", "per s", "p50 ms", "p99 ms"),
        [
            (row.method, row.version, row.cohort, row.outcome, each.count, *_numbers(each))
            for row, each in report.rows
        ],
    )
    if report.parts:
        lines += ["", "As time went by:"]
        lines += _table(
            ("users", "pages", "per s", "p50 ms", "p99 ms", "degraded", "failed"),
            [
                (part.users, part.pages.count, *_numbers(part.pages), part.degraded, part.failed)
                for part in report.parts
            ],
        )
        there = [part.users for part in report.parts]
        if there == sorted(there) and there[0] < there[-1]:
            last = knee(report.parts, report.level)
            if last is None:
                lines.append("  The level breaks from the first step on.")
            else:
                lines.append(
                    f"  The level is kept up to {last.users} users, {last.pages.per_s:.1f} pages per s."
                )
    if report.moments:
        lines += ["", "What went wrong, and when:"]
        lines += [
            f"  {moment.outcome}: from {_clock(moment.first)} to {_clock(moment.last)}, "
            f"{moment.first - report.begun} s to {moment.last - report.begun} s into the run, "
            f"{moment.count} of {moment.of} pages"
            for moment in report.moments
        ]
    lines.append("")
    lines += [f"FAIL: {breach}" for breach in report.breaches]
    lines += [f"INVALID: {flaw}" for flaw in report.flaws]
    if report.code == PASS:
        asked = ", ".join(
            f"{name} {bound:g}" for name, bound in report.level.model_dump(exclude_none=True).items()
        )
        lines.append(f"PASS: {asked or 'nothing was asked for'}")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """All of it, for programs."""
    verdict = {INVALID: "INVALID", FAIL: "FAIL", PASS: "PASS"}[report.code]
    return asdict(report) | {
        "level": report.level.model_dump(),
        "rows": [asdict(row) | asdict(each) for row, each in report.rows],
        "error_rate": report.error_rate,
        "degraded_rate": report.degraded_rate,
        "achieved": report.achieved,
        "verdict": verdict,
        "reasons": report.flaws + report.breaches,
    }


def _numbers(figures: Figures) -> tuple[str, str, str]:
    return f"{figures.per_s:.1f}", f"{figures.p50_ms:.1f}", f"{figures.p99_ms:.1f}"


def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Columns as wide as they have to be; numbers to the right."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    right = [all(cell[:1].isdigit() for cell in column) for column in zip(*cells, strict=True)] or [
        False
    ] * len(head)

    def line(row: Sequence[str]) -> str:
        return (
            "  "
            + "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, right, strict=True)
            ).rstrip()
        )

    return [line(head), *map(line, cells)]
