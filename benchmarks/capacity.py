"""`python -m benchmarks.capacity`: the highest rate of pages at which the service level is still kept.

Locust's open loop, on what `make up` has started, at rates that double until the level breaks, and that then
halve the distance (as a ratio) between the highest that kept it and the lowest that did not. What is found is
tried again; if it does not hold, the next lower one that did is. Table and curve are kept in `var/capacity/`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.locust_command import ROOT, locust_command, why_refused
from features.settings import load_settings
from features.state_folder import make_state_folder

_LEAST, _MOST = 1.0, 1e6
_OVERTIME_S = 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A run at one rate."""

    rate: float
    """Pages due a second."""
    verdict: str
    """PASS, FAIL or INVALID."""
    reasons: list[str]
    answered: float
    """Pages a second."""
    p50_ms: float
    p99_ms: float
    degraded_rate: float
    error_rate: float
    generator: float
    """Share of a core that its busiest process used."""

    @property
    def kept(self) -> bool:
        """Whether the service level was."""
        return self.verdict == "PASS"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found."""

    rate: float
    """The highest that was kept, pages a second; 0: none was."""
    bound: str
    """What broke above it; of INVALID trials the generator, which says nothing of the service."""
    trials: list[Trial]


def search(trial: Callable[[float], Trial], start: float, precision: float) -> Capacity:
    """Tries rates, from `start` on, until the highest that keeps the level and the lowest that does not are
    as near to each other as `precision` says (0.1: 10 %).
    """
    trials: list[Trial] = []

    def once(rate: float) -> Trial:
        trials.append(trial(rate))
        return trials[-1]

    def attempt(rate: float) -> Trial:
        # A hiccup of the machine should not bound what is found: only what breaks twice is broken.
        first = once(rate)
        return first if first.kept else once(rate)

    kept, broken = 0.0, math.inf
    above = attempt(start)
    if above.kept:
        while above.kept and above.rate < _MOST:
            kept, above = above.rate, attempt(above.rate * 2)
    else:
        while not above.kept and above.rate / 2 >= _LEAST:
            below = attempt(above.rate / 2)
            if below.kept:
                kept = below.rate
                break
            above = below
    broken = above.rate
    while kept and broken > kept * (1 + precision):
        middle = attempt(math.sqrt(kept * broken))
        if middle.kept:
            kept = middle.rate
        else:
            broken, above = middle.rate, middle
    # One lucky run is no capacity.
    for rate in sorted({each.rate for each in trials if each.kept and each.rate <= kept}, reverse=True):
        again = once(rate)
        if again.kept:
            return Capacity(rate, "; ".join(above.reasons), trials)
        above = again
    return Capacity(0.0, "; ".join(above.reasons), trials)


def run_locust(rate: float, seconds: float, report: Path, more: Sequence[str] = ()) -> Trial:
    """One run of `locust -f loadtest/`; `more`: options for it.

    Raises:
        BenchmarkError: it could not be started; with its own words.
    """
    report.unlink(missing_ok=True)
    # A session of its own: with --processes it has children, which end with it.
    with subprocess.Popen(
        locust_command(rate, report, more, "-t", f"{seconds:g}s"),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds + _OVERTIME_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if not report.exists() or not report.stat().st_size:
        raise BenchmarkError(f"locust: {(said.strip().splitlines() or ['said nothing'])[-1]}")
    return trial_of(rate, json.loads(report.read_text(encoding="utf-8")))


def trial_of(rate: float, report: dict[str, Any]) -> Trial:
    """What a run's `--report` says."""
    pages = report["pages"]
    return Trial(
        rate,
        report["verdict"],
        report["reasons"],
        pages["per_s"],
        pages["p50_ms"],
        pages["p99_ms"],
        report["degraded_rate"],
        report["error_rate"],
        max(report["generator"], default=0.0),
    )


def markdown(capacity: Capacity, seconds: float) -> str:
    """The table."""
    head = (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores ({platform.machine()}), the load "
        f"generator on the same machine; runs of {seconds:g} s, open loop."
    )
    found = f"**{capacity.rate:.0f} pages a second** keep the service level; above: {capacity.bound}"
    if not capacity.rate:
        found = f"No rate that was tried keeps the service level: {capacity.bound}"
    rows = [
        f"| {each.rate:.0f} | {each.answered:.0f} | {each.p50_ms:.1f} | {each.p99_ms:.1f} | "
        f"{each.degraded_rate:.2%} | {each.error_rate:.2%} | {each.generator:.0%} | {each.verdict} |"
        for each in sorted(capacity.trials, key=lambda each: each.rate)
    ]
    columns = "| due/s | answered/s | p50, ms | p99, ms | degraded | failed | generator, of a core | |"
    return "\n".join([head, "", found, "", columns, "|" + "---|" * 8, *rows, ""])


def plot(capacity: Capacity, path: Path) -> None:
    """The curve of latency over throughput."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    trials = sorted((each for each in capacity.trials if each.answered), key=lambda each: each.rate)
    figure, axis = pyplot.subplots(figsize=(6.0, 4.0))
    x = [each.answered for each in trials]
    axis.plot(x, [each.p99_ms for each in trials], marker="o", label="p99")
    axis.plot(x, [each.p50_ms for each in trials], marker="o", label="p50")
    broken = [each for each in trials if not each.kept]
    marks = [each.answered for each in broken], [each.p99_ms for each in broken]
    axis.scatter(*marks, marker="x", s=80, color="black", zorder=3, label="service level broken")
    axis.set(xlabel="pages answered a second", ylabel="ms, from when a page was due", yscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity",
        description=(__doc__ or "").splitlines()[0],
        epilog="What else is given goes to locust: --slo FILE, --processes 2, --anonymous 0, -H HOST:PORT, …",
    )
    parser.add_argument("--start", type=float, default=100.0, help="the first rate, pages a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one run")
    parser.add_argument("--precision", type=float, default=0.1, help="0.1: what is found is right to 10 %%")
    arguments, more = parser.parse_known_args()
    for name, least, most in (("start", _LEAST, _MOST), ("seconds", 1, 3600), ("precision", 0.01, 1)):
        if not least <= getattr(arguments, name) <= most:
            parser.error(f"--{name}: must be from {least:g} to {most:g}")
    if refusal := why_refused(more):
        parser.error(refusal)
    return arguments, more


def main() -> int:
    """Searches, prints the table and keeps all; 1 if no rate keeps the level, 2 if none could be tried."""
    arguments, more = _arguments()
    settings = load_settings()
    make_state_folder(settings.state_dir)
    folder = settings.state_dir.absolute() / "capacity"
    folder.mkdir(exist_ok=True)

    def trial(rate: float) -> Trial:
        done = run_locust(rate, arguments.seconds, folder / "run.json", more)
        print(
            f"{rate:.0f}/s due: {done.verdict}, p99 {done.p99_ms:.1f} ms {'; '.join(done.reasons)}",
            flush=True,
        )
        return done

    try:
        capacity = search(trial, arguments.start, arguments.precision)
    except (BenchmarkError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    table = markdown(capacity, arguments.seconds)
    (folder / "capacity.md").write_text(table, encoding="utf-8")
    (folder / "capacity.json").write_text(json.dumps(asdict(capacity), indent=1) + "\n", encoding="utf-8")
    plot(capacity, folder / "capacity.png")
    print(f"\n{table}\nkept in {folder}")
    return 0 if capacity.rate else 1


if __name__ == "__main__":
    raise SystemExit(main())
