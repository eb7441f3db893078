"""`python -m benchmarks`: the gateway's throughput beside its floor and beside one without coalescing.

All servers run at once and are measured in turn, several rounds over; what counts are the ratios within a
round, since shared machines are faster at one moment than at the next. Medians, with the lowest and highest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil

from benchmarks.load import Load
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import StoreUnavailable, open_store

_READY_S = 180.0
_END_S = 30.0
_USERS = 1000

FLOOR, COALESCED, ONE_BY_ONE = "empty grpc.aio call", "gateway", "gateway, one ModelInfer per request"


class BenchmarkError(Exception):
    """Something that the benchmark needs is missing or does not start."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(log: Path, *module: str, **settings: object) -> Iterator[psutil.Process]:
    env = {**os.environ, **{f"RIPTIDE_{name.upper()}": str(value) for name, value in settings.items()}}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", *module], env=env, stdout=file, stderr=file)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(what: str, log: Path, process: psutil.Process, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_S
    while not ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > end:
            raise BenchmarkError(f"{what} did not start; {log} says why")
        time.sleep(0.1)


def _serves_model(port: int) -> bool:
    try:
        # No proxy: what is asked runs here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(json.load(answer) == {"gateway": "SERVING", "model": "SERVING"})
    except (OSError, ValueError):
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _load(port: int, users: Sequence[str], in_flight: int, seconds: float, *, floor: bool = False) -> Load:
    command = [sys.executable, "-m", "benchmarks.load", "--target", f"127.0.0.1:{port}"]
    command += ["--in-flight", str(in_flight), "--seconds", str(seconds), *(["--floor"] if floor else [])]
    done = subprocess.run(command, input="\n".join(users), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"the load generator failed: {done.stderr.strip().splitlines()[-1]}")
    return Load(**json.loads(done.stdout))


def _cpu_s(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return float(sum(times.user + times.system for times in (member.cpu_times() for member in family)))


async def _users(settings: Settings) -> list[str]:
    store = open_store(settings)
    try:
        return await store.sample_users(_USERS)
    finally:
        await store.close()


def _measure(
    settings: Settings, arguments: argparse.Namespace, folder: Path
) -> list[dict[str, dict[str, float]]]:
    users = asyncio.run(_users(settings))
    if not users:
        raise BenchmarkError(f"{settings.store}: no users; run make run once")
    triton = {f"triton_{kind}_port": _free_port() for kind in ("http", "grpc", "metrics")}
    ports = {name: _free_port() for name in (FLOOR, COALESCED, ONE_BY_ONE)}
    rounds: list[dict[str, dict[str, float]]] = []
    with ExitStack() as stack:
        logs = {name: folder / f"{index}.log" for index, name in enumerate(["Triton", *ports])}
        stack.enter_context(_running(logs["Triton"], "inference", **triton))
        workers = ["--workers", str(arguments.workers)]
        processes = {
            FLOOR: stack.enter_context(
                _running(logs[FLOOR], "benchmarks.floor", "--port", str(ports[FLOOR]), *workers)
            )
        }
        _wait("the floor", logs[FLOOR], processes[FLOOR], lambda: _listens(ports[FLOOR]))
        for name in (COALESCED, ONE_BY_ONE):
            http_port = _free_port()
            processes[name] = stack.enter_context(
                _running(
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
            _wait(name, logs[name], processes[name], lambda port=http_port: _serves_model(port))  # type: ignore[misc]
            _load(
                ports[name], users, arguments.in_flight, 3.0
            )  # warms caches: every user's vector is kept now
        for number in range(arguments.rounds):
            figures: dict[str, dict[str, float]] = {}
            for name, port in ports.items():
                cpu = _cpu_s(processes[name])
                load = _load(port, users, arguments.in_flight, arguments.seconds, floor=name == FLOOR)
                cpu = _cpu_s(processes[name]) - cpu
                figures[name] = asdict(load) | {
                    "per_s": load.per_s,
                    "cpu_us_per_call": cpu / load.calls * 1e6,
                }
                print(f"round {number + 1}: {name}: {load.per_s:.0f}/s", file=sys.stderr)
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
