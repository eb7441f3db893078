"""What a run has measured. Each process counts for itself; Locust's master adds up what its workers send."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest._histogram import Histogram

RECOMMEND = "Recommend"
FULL = ""
"""The outcome of a page that the model made; of a degraded one it is the reason's name."""
NOTHING_KNOWN = "COLD_START"
"""Not counted as degraded: of a user of whom nothing is known, there is no better page."""
FAILED = "failed: "
"""What the outcome of a call without an answer begins with; the status follows, or EMPTY_PAGE."""
UNANSWERED = f"{FAILED}UNANSWERED"
"""Of a call that had waited for longer than this when its user went or the run ended:"""
_LONG_S = 1.0
_WINDOW_S = 3.0


def is_degraded(outcome: str) -> bool:
    """Whether there was a page, and a better one might have been."""
    return outcome not in (FULL, NOTHING_KNOWN) and not outcome.startswith(FAILED)


@dataclass(frozen=True, slots=True)
class Row:
    """What calls are counted by."""

    method: str
    version: str
    """Of the model that answered, `recommender 3`; empty if nobody did, or if the method does not tell."""
    cohort: str
    outcome: str

    @property
    def failed(self) -> bool:
        """Whether there was no answer."""
        return self.outcome.startswith(FAILED)


@dataclass(slots=True)
class Process:
    """A process of the load generator."""

    cpu_s: float = 0.0
    """Of all its threads."""
    wall_s: float = 0.0
    busiest: float = 0.0
    """The largest share of some seconds in which the thread that runs its users was at work; 1 is all."""

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0


@dataclass(slots=True)
class Second:
    """The calls that were due in one second."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Of pages."""
    latency: Histogram = field(default_factory=Histogram)
    """Of pages that were answered."""
    others: Histogram = field(default_factory=Histogram)
    """Of calls of all other methods, answered or not."""
    others_failed: int = 0


@dataclass
class Tally:
    """Calls, when they were due, and what it cost to make them."""

    latency: dict[Row, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    """From the moment that a call was due until its answer."""
    late: Histogram = field(default_factory=Histogram)
    """From the moment that a page was due until it was asked for: what the generator itself adds."""
    offered: int = 0
    """Pages that were due in an open loop."""
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    """By Unix second."""
    begun: float = math.inf
    ended: float = -math.inf
    """When the first and the last of all calls were due, Unix seconds."""
    processes: dict[str, Process] = field(default_factory=lambda: defaultdict(Process))
    """Name of a process of the generator → what it used."""

    def count(self, row: Row, due: float, sent: float, ended: float) -> None:
        """Counts one call; moments are those of `time.perf_counter`, seconds."""
        took_ms, at = (ended - due) * 1e3, time.time() - (time.perf_counter() - due)
        self.latency[row].add(took_ms)
        self.begun, self.ended = min(self.begun, at), max(self.ended, at)
        second = self.seconds[int(at)]
        if row.method != RECOMMEND:
            second.others.add(took_ms)
            second.others_failed += row.failed
            return
        self.late.add((sent - due) * 1e3)
        second.outcomes[row.outcome] += 1
        if not row.failed:
            second.latency.add(took_ms)

    def update(self, other: Tally) -> None:
        """Adds what another one has counted."""
        for row, histogram in other.latency.items():
            self.latency[row].update(histogram)
        self.late.update(other.late)
        self.offered += other.offered
        for at, second in other.seconds.items():
            self.seconds[at].outcomes.update(second.outcomes)
            self.seconds[at].latency.update(second.latency)
            self.seconds[at].others.update(second.others)
            self.seconds[at].others_failed += second.others_failed
        self.begun, self.ended = min(self.begun, other.begun), max(self.ended, other.ended)
        for name, process in other.processes.items():
            mine = self.processes[name]
            mine.cpu_s += process.cpu_s
            mine.wall_s += process.wall_s
            mine.busiest = max(mine.busiest, process.busiest)

    def to_message(self) -> dict[str, Any]:
        """As Locust sends it from a worker to its master."""
        return {
            "latency": [
                [*dataclasses.astuple(row), dict(histogram.buckets)]
                for row, histogram in self.latency.items()
            ],
            "late": dict(self.late.buckets),
            "offered": self.offered,
            "seconds": {
                at: [
                    dict(second.outcomes),
                    dict(second.latency.buckets),
                    dict(second.others.buckets),
                    second.others_failed,
                ]
                for at, second in self.seconds.items()
            },
            "span": [self.begun, self.ended],
            "processes": {name: dataclasses.astuple(each) for name, each in self.processes.items()},
        }

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Tally:
        """What `to_message` made."""
        tally = cls(late=Histogram(message["late"]), offered=message["offered"])
        for *names, buckets in message["latency"]:
            tally.latency[Row(*names)].update(Histogram(buckets))
        tally.begun, tally.ended = message["span"]
        for at, (outcomes, pages, others, failed) in message["seconds"].items():
            tally.seconds[at] = Second(Counter(outcomes), Histogram(pages), Histogram(others), failed)
        for name, used in message["processes"].items():
            tally.processes[name] = Process(*used)
        return tally


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call in flight; moments are those of `time.perf_counter`."""

    method: str
    due: float
    sent: float
    is_offered: bool
    """Whether it counts as a page that was due in an open loop."""


class Meter:
    """The tally of this process, and the processor time and time since it was last handed out."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begins anew: what was counted is forgotten, and so are calls in flight."""
        self._runs = True
        self._open: set[Call] = set()
        self._begin()

    def _begin(self) -> None:
        self.tally = Tally()
        self._cpu, self._wall, self._busiest = time.process_time(), time.perf_counter(), 0.0
        self._window = self._wall, time.thread_time()

    def leaves(self, method: str, due: float, *, is_offered: bool = False) -> Call:
        """A call leaves now."""
        call = Call(method, due, time.perf_counter(), is_offered)
        if self._runs:
            self._open.add(call)
            self.tally.offered += is_offered
        return call

    def ends(self, call: Call, row: Row) -> float:
        """It has its answer, or has failed; from when it was due, seconds."""
        now = time.perf_counter()
        if call in self._open:
            self._open.remove(call)
            self.tally.count(row, call.due, call.sent, now)
            self._look_at_time(now)
        return now - call.due

    def is_given_up(self, call: Call) -> None:
        """Nobody waits for it any more: its user goes, or the run ends.

        One that has waited long has failed; of another nothing is known, so that it was never due.
        """
        if call not in self._open:
            return
        self._open.remove(call)
        now = time.perf_counter()
        if now - call.due > _LONG_S:
            self.tally.count(Row(call.method, "", "", UNANSWERED), call.due, call.sent, now)
        else:
            self.tally.offered -= call.is_offered

    def stop(self) -> None:
        """The run is over: what comes now takes none of its time, and counts no more."""
        if self._runs:
            for call in list(self._open):
                self.is_given_up(call)
            self._runs = False
            self._cpu, self._wall = time.process_time() - self._cpu, time.perf_counter() - self._wall

    def take(self, name: str) -> Tally:
        """What was counted since the last time, with what this process, named so, used for it."""
        tally = self.tally
        if self._runs:
            cpu, wall, busiest = self._cpu, self._wall, self._busiest
            window = self._window
            self._begin()
            self._window = window
            tally.processes[name] = Process(self._cpu - cpu, self._wall - wall, busiest)
        elif self._wall:
            self.tally = Tally()
            tally.processes[name] = Process(self._cpu, self._wall, self._busiest)
            self._cpu = self._wall = 0.0
        return tally

    def _look_at_time(self, now: float) -> None:
        """Users are greenlets of one thread: how busy that is, is what bounds them."""
        since, at_work = self._window
        if now - since >= _WINDOW_S:
            thread = time.thread_time()
            self._busiest = max(self._busiest, (thread - at_work) / (now - since))
            self._window = now, thread


METER = Meter()
"""That of this process."""
