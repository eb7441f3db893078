"""`python -m benchmarks.rollouts`: rollouts in a row under load, on a deployment of its own.

The model and the users are those of `make run`; repository, store, ports and processes are the benchmark's
own. The load is open-loop at a quarter of what a closed loop of 64 calls got out of the same gateway just
before. What counts: failed and degraded calls, the p99 while rollouts go on beside the p99 before and after
them, and the memory of all processes before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.processes import (
    BenchmarkError,
    environment,
    free_port,
    listens,
    load,
    programs,
    running,
    serves_model,
    users_of,
    wait,
)
from features.settings import Settings, load_settings
from features.state_folder import make_state_folder
from features.store import open_store
from features.traffic import document_name

_IN_FLIGHT = 64
_SHARE = 0.25
_STEADY_S = 30.0
_SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one stretch of time."""

    count: int
    failed: int
    degraded: int
    p50_ms: float
    p99_ms: float


def calls_between(path: Path, begin: float, end: float) -> Calls:
    """What the generator noted of the calls that were to leave from `begin` to `end`, Unix seconds."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if begin <= line["at"] < end]
    p50, p99 = np.percentile([line["ms"] for line in lines], [50, 99])
    failed = sum("failed" in line for line in lines)
    degraded = sum(bool(line.get("degraded")) for line in lines)
    return Calls(len(lines), failed, degraded, float(p50), float(p99))


def resident_mib(processes: Sequence[psutil.Process]) -> float:
    """Proportional set size of the processes and all that they have started, MiB: shared pages count once."""
    family = {
        member.pid: member for process in processes for member in (process, *process.children(recursive=True))
    }
    return float(sum(member.memory_full_info().pss for member in family.values())) / (1 << 20)


@contextmanager
def _steady(folder: Path, port: int, users: Sequence[str], per_s: float) -> Iterator[Path]:
    out = folder / "calls.jsonl"
    generator = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.steady", "--target", f"127.0.0.1:{port}"),
            *("--per-s", f"{per_s:.1f}", "--out", str(out)),
        ],
        stdin=subprocess.PIPE,
        text=True,
    )
    assert generator.stdin is not None
    generator.stdin.write("\n".join(users))
    generator.stdin.close()
    try:
        yield out
    finally:
        generator.terminate()
        generator.wait()


def _command(env: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def seconds_to_roll_back(
    settings: Settings, env: dict[str, str], version: int, triton: psutil.Process
) -> float:
    """From the death of a candidate's process, with 30 % of the users, to its rollback."""

    def record() -> dict[str, object]:
        async def read() -> bytes:
            store = open_store(settings)
            try:
                return (await store.control.read_document(document_name(settings.model_name))).value
            finally:
                await store.close()

        return dict(json.loads(asyncio.run(read())))

    def until(phase: str) -> dict[str, object]:
        while (now := record())["phase"] != phase:
            if now["phase"] == "rolled_back":
                raise BenchmarkError(f"version {version} was rolled back: {now['reason']}")
            time.sleep(0.2)
        return now

    before = {child.pid for child in triton.children(recursive=True)}
    words = f"rollout start --version {version} --step-time 1h --detach".split()
    _command(env, *words)
    until("shadow")
    _command(env, "rollout", "set", "30")
    time.sleep(3.0)
    [candidate] = [
        child
        for child in triton.children(recursive=True)
        if child.pid not in before and "stub" in child.name()
    ]
    killed = time.time()
    candidate.kill()
    return float(str(until("rolled_back")["since"])) - killed


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Does it; the figures by name."""
    settings = load_settings()
    export, data = (
        settings.state_dir / "exports" / arguments.model,
        settings.state_dir / "data" / arguments.model,
    )
    if not export.is_dir() or not data.is_dir():
        raise BenchmarkError(f"{export}: no export, or {data}: no data; run make run once")
    own = {
        "state_dir": folder / "var",
        "model_repository": folder / "repository",
        "model_name": settings.model_name,
        **programs(settings),
        "keep_versions": arguments.rollouts + 1,
        **{
            f"{name}_port": free_port()
            for name in ("grpc", "operator", "http", "triton_http", "triton_grpc", "triton_metrics")
        },
    }
    env = environment(**own)
    port, http_port = int(str(own["grpc_port"])), int(str(own["http_port"]))
    print("publishing and loading users", file=sys.stderr)
    for _ in range(arguments.rollouts + 1):
        _command(env, "rollout", "publish", "--export", str(export))
    _command(env, "features", "backfill", "--data", str(data))
    with ExitStack() as stack:
        logs = {name: folder / f"{name}.log" for name in ("inference", "gateway", "rollout")}
        triton = stack.enter_context(running(logs["inference"], "inference", **own))
        gateway = stack.enter_context(running(logs["gateway"], "gateway", **own))
        driver = stack.enter_context(running(logs["rollout"], "rollout", "drive", **own))
        wait("the gateway", logs["gateway"], gateway, lambda: serves_model(http_port))
        wait("the driver", logs["rollout"], driver, lambda: listens(int(str(own["operator_port"]))))
        deployed = settings.model_copy(update={"state_dir": folder / "var", "store": "lmdb"})
        users = users_of(deployed)
        load(port, users, _IN_FLIGHT, 3.0)  # warms caches
        capacity = load(port, users, _IN_FLIGHT, 6.0).per_s
        processes = [triton, gateway, driver]
        with _steady(folder, port, users, capacity * _SHARE) as out:
            time.sleep(_SETTLE_S)
            marks = [time.time()]
            time.sleep(_STEADY_S)
            before_mib = resident_mib(processes)
            marks.append(time.time())
            durations = []
            for version in range(2, arguments.rollouts + 2):
                began = time.time()
                said = _command(
                    env,
                    *("rollout", "start", "--version", str(version), "--step-time", f"{arguments.step_s}s"),
                    *("--grace", "2s", "--min-calls", "20", "--steps", "1,5,25,100"),
                )
                durations.append(time.time() - began)
                print(f"version {version}: {durations[-1]:.1f} s", file=sys.stderr)
                (folder / f"rollout-{version}.txt").write_text(said)
            marks.append(time.time())
            time.sleep(_SETTLE_S)
            marks.append(time.time())
            time.sleep(_STEADY_S)
            after_mib = resident_mib(processes)
            marks.append(time.time())
            rolled_back_s = seconds_to_roll_back(deployed, env, 1, triton)
            time.sleep(1.0)
            marks.append(time.time())
        steady = [calls_between(out, marks[0], marks[1]), calls_between(out, marks[3], marks[4])]
        during = calls_between(out, marks[1], marks[2])
        everything = calls_between(out, marks[0], marks[5])
    steady_p99 = statistics.mean(part.p99_ms for part in steady)
    return {
        "rollouts": arguments.rollouts,
        "seconds per rollout, median": round(statistics.median(durations), 1),
        "capacity, calls per second": round(capacity),
        "offered, calls per second": round(capacity * _SHARE),
        "calls": everything.count,
        "failed": everything.failed,
        "degraded": everything.degraded,
        "steady p50 ms, before and after": [round(part.p50_ms, 1) for part in steady],
        "steady p99 ms, before and after": [round(part.p99_ms, 1) for part in steady],
        "p50 ms during rollouts": round(during.p50_ms, 1),
        "p99 ms during rollouts": round(during.p99_ms, 1),
        "p99 during / steady": round(during.p99_ms / steady_p99, 2),
        "seconds from the death of a candidate's process to its rollback": round(rolled_back_s, 2),
        "memory MiB, before and after": [round(before_mib), round(after_mib)],
        "memory after / before": round(after_mib / before_mib, 3),
    }


def main() -> int:
    """Measures, prints the figures, and keeps them with all calls under `var/bench/`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--step-s", type=float, default=2.0)
    parser.add_argument("--model", default="movielens-100k", help="name of the data that it was trained on")
    arguments = parser.parse_args()
    settings = load_settings()
    make_state_folder(settings.state_dir)
    folder = settings.state_dir / "bench" / time.strftime("rollouts-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    try:
        figures = measure(arguments, folder.absolute())
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder / "repository", ignore_errors=True)
        shutil.rmtree(folder / "var", ignore_errors=True)
    text = "\n".join(f"- {name}: {re.sub('[][]', '', str(value))}" for name, value in figures.items())
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    print(text)
    print(f"kept in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
