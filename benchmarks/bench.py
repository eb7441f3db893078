"""What every scenario is given, and the one way in which all of them measure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from benchmarks import gateway_metrics, generators
from benchmarks.errors import BenchmarkError, translated
from benchmarks.processes import cpu_s
from benchmarks.section import Measured, Section
from benchmarks.target import Target
from features.settings import Settings


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmark."""

    settings: Settings
    folder: Path
    """Where results and logs stay."""
    work: Path
    """Deleted at the end."""
    rounds: int
    seconds: float
    """Of one measurement."""
    in_flight: int

    def log(self, name: str) -> Path:
        """A log file of that name."""
        return self.folder / "log" / f"{name}.log"

    def say(self, text: str) -> None:
        """Progress, for who waits."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def kept(self, section: Section) -> Iterator[None]:
        """If the block fails, what the section has stays, and says so."""
        try:
            with translated():
                yield
        except BenchmarkError as error:
            self.say(f"  {error}")
            section.failures.append(str(error))


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers."""

    name: str
    target: Target
    processes: Mapping[str, psutil.Process] = field(default_factory=dict)
    """Whose CPU is counted, each with all that it has started."""
    metrics_port: int | None = None
    """Of a gateway, which counts what it failed and degraded."""


Figures = Callable[[], dict[str, float]]
_T = TypeVar("_T")


def measure(
    bench: Bench,
    server: Server,
    number: int,
    *,
    in_flight: int | None = None,
    per_s: float | None = None,
    own: bool = False,
    target: Target | None = None,
    load: str = "",
    more: Callable[[], Figures] | None = None,
) -> Measured:
    """One server under one load: closed with `in_flight` calls, or open at `per_s`.

    Args:
        number: of the round.
        own: by our own generator, even if there is one in C.
        target: what is called, if not the server's usual.
        load: how the table calls it, if not by its kind.
        more: called before the load, and what it returned after it; gives further figures.

    Raises:
        BenchmarkError: nothing was answered.
    """
    target = target or server.target
    counted = gateway_metrics.read(server.metrics_port) if server.metrics_port else None
    cpu = {name: cpu_s(process) for name, process in server.processes.items()}
    after = more() if more else None
    if per_s is not None:
        observed = generators.open_loop(target, per_s, bench.seconds, seed=number, folder=bench.work)
        load = load or f"open, {per_s:.0f}/s"
    else:
        assert in_flight is not None
        observed = generators.closed(target, in_flight, bench.seconds, own=own, folder=bench.work)
        load = load or closed_load(in_flight, own=own)
    figures = after() if after else {}
    cpu = {name: cpu_s(process) - cpu[name] for name, process in server.processes.items()}
    if not observed.answered:
        raise BenchmarkError(f"{server.name} answered nothing; its log is in {bench.folder / 'log'}")
    failed = degraded = None
    if counted is not None and server.metrics_port:
        since = gateway_metrics.read(server.metrics_port) - counted
        calls = since.total("riptide_requests_total", method="Recommend")
        # h2load hangs up on what is in flight when its time is over.
        fine = ("OK", "CANCELLED")
        fine_calls = sum(
            since.total("riptide_requests_total", method="Recommend", code=code) for code in fine
        )
        failed = round(calls - fine_calls)
        pages = "riptide_pages_total"
        degraded = round(since.total(pages) - since.total(pages, outcome="FULL"))
    bench.say(
        f"  round {number}: {server.name}, {load}: {observed.per_s:.0f}/s, "
        f"p50 {observed.p50_ms:.2f} ms, p99 {observed.p99_ms:.2f} ms"
    )
    calls_made = observed.answered + observed.failed
    per_call = {name: used / calls_made * 1e6 for name, used in cpu.items()}
    return Measured(number, server.name, load, observed, per_call, failed, degraded, figures)


def in_turn(servers: Sequence[_T], number: int) -> Sequence[_T]:
    """In this order in odd rounds, backwards in even ones: none has always the same neighbour before it."""
    return servers if number % 2 else servers[::-1]


def closed_load(in_flight: int, *, own: bool = False) -> str:
    """How tables call a closed loop."""
    return f"{in_flight} in flight" + (", own generator" if own else "")
