"""`python -m benchmarks`: the gateway's throughput beside its floor and beside one without coalescing.

All servers run at once and are measured in turn, several rounds over; what counts are the ratios within a
round, since shared machines are faster at one moment than at the next. Medians, with the lowest and highest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.processes import (
    BenchmarkError,
    cpu_s,
    free_port,
    listens,
    load,
    running,
    serves_model,
    users_of,
    wait,
)
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import StoreUnavailable

FLOOR, COALESCED, ONE_BY_ONE = "empty grpc.aio call", "gateway", "gateway, one ModelInfer per request"


def _measure(
    settings: Settings, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, dict[str, float]]]:
    users = users_of(settings)
    if not users:
        raise BenchmarkError(f"{settings.store}: no users; run make run once")
    triton = {f"triton_{kind}_port": free_port() for kind in ("http", "grpc", "metrics")}
    ports = {name: free_port() for name in (FLOOR, COALESCED, ONE_BY_ONE)}
    rounds: list[dict[str, dict[str, float]]] = []
    with ExitStack() as stack:
        logs = {name: folder / f"{index}.log" for index, name in enumerate(["Triton", *ports])}
        stack.enter_context(running(logs["Triton"], "inference", **triton))
        workers = ["--workers", str(arguments.workers)]
        processes = {
            FLOOR: stack.enter_context(
                running(logs[FLOOR], "benchmarks.floor", "--port", str(ports[FLOOR]), *workers)
            )
        }
        wait("the floor", logs[FLOOR], processes[FLOOR], lambda: listens(ports[FLOOR]))
        for name in (COALESCED, ONE_BY_ONE):
            http_port = free_port()
            processes[name] = stack.enter_context(
                running(
                    logs[name],
                    "gateway",
                    *workers,
                    grpc_port=ports[name],
                    http_port=http_port,
                    coalesce=name == COALESCED,
                    # Slow answers are wanted here, not fallback pages.
                    model_timeout_ms=5000,
                    **triton,
                )
            )
            wait(name, logs[name], processes[name], lambda port=http_port: serves_model(port))  # type: ignore[misc]
            load(
                ports[name], users, arguments.in_flight, 3.0
            )  # warms caches: every user's vector is kept now
        for number in range(arguments.rounds):
            figures: dict[str, dict[str, float]] = {}
            for name, port in ports.items():
                cpu = cpu_s(processes[name])
                measured = load(port, users, arguments.in_flight, arguments.seconds, floor=name == FLOOR)
                cpu = cpu_s(processes[name]) - cpu
                figures[name] = asdict(measured) | {
                    "per_s": measured.per_s,
                    "cpu_us_per_call": cpu / measured.calls * 1e6,
                }
                print(f"round {number + 1}: {name}: {measured.per_s:.0f}/s", file=sys.stderr)
            rounds.append(figures)
    return rounds


def _table(rounds: list[dict[str, dict[str, float]]], arguments: argparse.Namespace) -> str:
    def of(name: str, figure: str) -> str:
        values = [figures[name][figure] for figures in rounds]
        return f"{statistics.median(values):.4g} ({min(values):.4g}–{max(values):.4g})"

    def ratio(other: str) -> str:
        ratios = [figures[COALESCED]["per_s"] / figures[other]["per_s"] for figures in rounds]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"

    lines = [
        f"{arguments.in_flight} calls in flight, closed loop, {arguments.workers} worker(s), "
        f"{len(rounds)} rounds of {arguments.seconds:g} s, {os.cpu_count()} cores ({platform.machine()}); "
        "load generator: one Python process (grpc.aio). Median (lowest–highest).",
        "",
        "| server | calls/s | p50 ms | p99 ms | server CPU µs/call | generator cores | failed | degraded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (FLOOR, COALESCED, ONE_BY_ONE):
        failed = sum(int(figures[name]["failed"]) for figures in rounds)
        degraded = sum(int(figures[name]["degraded"]) for figures in rounds)
        looked_at = sum(int(figures[name]["looked_at"]) for figures in rounds)
        lines.append(
            f"| {name} | {of(name, 'per_s')} | {of(name, 'p50_ms')} | {of(name, 'p99_ms')} | "
            f"{of(name, 'cpu_us_per_call')} | {of(name, 'generator_cpu')} | {failed} | "
            f"{f'{degraded} of {looked_at}' if looked_at else '–'} |"
        )
    lines += [
        "",
        f"- gateway / empty call: **{ratio(FLOOR)}**",
        f"- gateway / one ModelInfer per request: **{ratio(ONE_BY_ONE)}**",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measures, prints the table, and keeps it with the raw figures under `var/bench/`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    settings = load_settings()
    folder = settings.state_dir / "bench" / time.strftime("%Y%m%d-%H%M%S")
    make_state_folder(settings.state_dir)
    folder.mkdir(parents=True)
    try:
        rounds = _measure(settings, arguments, folder)
    except (BenchmarkError, StoreUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    table = _table(rounds, arguments)
    (folder / "table.md").write_text(table)
    (folder / "rounds.json").write_text(json.dumps(rounds, indent=1))
    print(table)
    print(f"kept in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
