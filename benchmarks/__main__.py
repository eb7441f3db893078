"""`python -m benchmarks`: what Riptide's figures are beside floors and peers, and how they grow.

Each scenario starts what it measures, measures it in turn in several rounds, and ends it. What counts are the
ratios within a round, since shared machines are faster at one moment than at the next. Writes `table.md`,
`results.json` and `growth.png` into a folder of `var/bench/`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import TypeVar

from benchmarks import h2load, wrk
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError, translated
from benchmarks.growth_plot import plot
from benchmarks.processes import programs
from benchmarks.section import Section
from benchmarks.tables import as_json, markdown
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder

SCENARIOS = {
    "throughput": "benchmarks.throughput",
    "few-calls": "benchmarks.few_calls",
    "sizes": "benchmarks.sizes",
    "catalogues": "benchmarks.catalogues",
    "histories": "benchmarks.histories",
    "stores": "benchmarks.stores",
    "freshness": "benchmarks.freshness",
    "observability": "benchmarks.observability",
    "peers": "benchmarks.peers.scenario",
    "memory": "benchmarks.memory",
    "sweep": "benchmarks.sweep",
}
"""By name, the module whose `run(bench)` measures it."""
_N = TypeVar("_N", int, float)
ON_REQUEST = ("peers", "memory", "sweep")
"""They take long, or install much: only if they are named."""
_CALLERS = ("state_dir", "triton_ready_s")
"""Settings that are the caller's to say, beside where Triton is; the others would measure another Riptide."""


def _names(value: str) -> list[str]:
    names = [name for name in value.replace(",", " ").split() if name]
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SCENARIOS)}")
    return names


def _that(convert: Callable[[str], _N], fits: Callable[[_N], bool], wanted: str) -> Callable[[str], _N]:
    """A type of an argument: refused before anything is started, with a sentence that says what is wanted."""

    def checked(value: str) -> _N:
        with suppress(ValueError):
            if fits(number := convert(value)):
                return number
        raise argparse.ArgumentTypeError(f"must be {wanted}, not {value!r}")

    return checked


_ROUNDS = _that(int, lambda rounds: rounds >= 1, "1 or more")
_SECONDS = _that(float, lambda seconds: 0.1 <= seconds <= 600, "from 0.1 to 600")
# h2load runs as four processes, which share them.
_IN_FLIGHT = _that(int, lambda calls: calls >= 64 and calls % 4 == 0, "a multiple of 4 from 64 on")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=_names, default=[], help=f"some of {', '.join(SCENARIOS)}")
    parser.add_argument("--peers", action="store_true", help="the peers as well; installs them if need be")
    parser.add_argument("--rounds", type=_ROUNDS, default=5)
    parser.add_argument("--seconds", type=_SECONDS, default=4.0, help="of one measurement")
    parser.add_argument("--in-flight", type=_IN_FLIGHT, default=64, help="a multiple of 4 from 64 on")
    return parser.parse_args()


def _head(bench: Bench) -> str:
    generators = ", ".join(
        f"{name} {'is' if module.available() else 'is NOT'} installed"
        for name, module in (("h2load", h2load), ("wrk", wrk))
    )
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores ({platform.machine()}), everything and "
        f"the load generator on the one machine; {bench.rounds} rounds of {bench.seconds:g} s. Medians "
        f"(lowest–highest) of the rounds; ratios are taken within a round. Load generators: {generators}; "
        "where one is not, ours takes its place.\n"
    )


def _write(bench: Bench, sections: Sequence[Section]) -> str:
    text = "\n".join([_head(bench), *(markdown(section) for section in sections)])
    (bench.folder / "table.md").write_text(text, encoding="utf-8")
    results = {"rounds": bench.rounds, "seconds": bench.seconds, "sections": [*map(as_json, sections)]}
    (bench.folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    plot(bench.folder / "growth.png", sections)
    return text


def _interrupted(number: int, frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: with all that it has started."""
    raise KeyboardInterrupt


def main() -> int:
    """Measures, prints the tables and keeps them; 2 if a scenario could not be measured."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupted)
    settings = load_settings()
    names = arguments.only or [name for name in SCENARIOS if name not in ON_REQUEST]
    if arguments.peers and "peers" not in names:
        names.append("peers")
    make_state_folder(settings.state_dir)
    folder = settings.state_dir.absolute() / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    (folder / "log").mkdir(parents=True)
    bench = Bench(
        _measured(settings), folder, folder / "work", arguments.rounds, arguments.seconds, arguments.in_flight
    )
    with (folder.parent / ".lock").open("w") as lock:
        try:
            # Two at once would measure each other, and delete each other's models.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another benchmark is at work; try again when it has ended", file=sys.stderr)
            shutil.rmtree(folder)
            return 2
        return _measure(bench, names)


def _measured(settings: Settings) -> Settings:
    """The defaults, which is what is measured, in this state folder and with this Triton."""
    fields = Settings.model_fields.items()
    defaults = {name: field.default for name, field in fields if name not in _CALLERS}
    update = defaults | {"state_dir": settings.state_dir.absolute()} | programs(settings)
    return settings.model_copy(update=update)


def _measure(bench: Bench, names: Sequence[str]) -> int:
    sections: list[Section] = []
    status = 0
    try:
        for name in names:
            bench.say(name)
            began = time.perf_counter()
            scenario = replace(bench, work=bench.work / name)
            scenario.work.mkdir(parents=True)
            try:
                with translated():
                    section = import_module(SCENARIOS[name]).run(scenario)
            except BenchmarkError as error:
                section = Section(name, failures=[str(error)])
            sections.append(section)
            for failure in section.failures:
                print(f"{name}: {failure}", file=sys.stderr)
                status = 2
            shutil.rmtree(scenario.work, ignore_errors=True)
            bench.say(f"{name}: {time.perf_counter() - began:.0f} s")
            text = _write(bench, sections)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    print(text)
    print(f"kept in {bench.folder}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
