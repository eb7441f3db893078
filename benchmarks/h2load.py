"""The load generator in C for gRPC: `h2load` of nghttp2, with framed messages as bodies.

h2load posts one body, so one process is started per body: four users at 64 calls in flight. It counts HTTP
statuses; what gRPC says is in trailers that it does not read, so failed calls are counted by who is called.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed, percentiles_ms
from benchmarks.target import Target, framed

_PROCESSES = 4
_HEADERS = ("content-type: application/grpc", "te: trailers")
_COUNTS = re.compile(
    r"^requests: .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE
)
_OVERTIME_S = 30.0


def available() -> bool:
    """Whether it is installed (Debian: nghttp2-client)."""
    return shutil.which("h2load") is not None


def run(
    target: Target, in_flight: int, seconds: float, within: Path | None = None, *, per_s: float | None = None
) -> Observed:
    """A closed loop, or at most `per_s` calls a second at even distances; its files go into a folder below
    `within`, which is deleted.

    Raises:
        BenchmarkError: it fails.
    """
    processes = min(_PROCESSES, in_flight)
    if in_flight % processes:
        raise BenchmarkError(f"h2load: {in_flight} calls in flight are not a multiple of {processes}")
    bodies = [target.bodies[i * len(target.bodies) // processes] for i in range(processes)]
    cpu = _cpu_s()
    with tempfile.TemporaryDirectory(dir=within) as folder:
        started: list[subprocess.Popen[str]] = []
        try:
            for i, body in enumerate(bodies):
                (Path(folder) / f"{i}.body").write_bytes(framed(body))
                command = _command(Path(folder), i, target, in_flight // processes, seconds)
                if per_s is not None:
                    command[1:1] = [f"--rps={per_s / processes:g}"]
                started.append(
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                )
            said = [process.communicate(timeout=seconds + _OVERTIME_S)[0] for process in started]
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"h2load does not end: {error}") from error
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        failed = sum(failed_calls(text) for text in said)
        latencies = [
            latency
            for i in range(processes)
            for latency in answered_s((Path(folder) / f"{i}.log").read_text().splitlines())
        ]
    used = (_cpu_s() - cpu) / seconds
    different = len(set(bodies))
    return Observed(f"h2load, {different}", len(latencies), failed, seconds, *percentiles_ms(latencies), used)


def failed_calls(said: str) -> int:
    """Calls that h2load counts as failed, from what it prints.

    Raises:
        BenchmarkError: it does not say.
    """
    found = _COUNTS.search(said)
    if found is None:
        raise BenchmarkError(f"h2load: {said.strip().splitlines()[-1:] or 'said nothing'}")
    _, failed, errored, timeout = map(int, found.groups())
    return max(failed, errored + timeout)


def answered_s(log: Sequence[str]) -> list[float]:
    """Seconds that each call with status 200 took, from the lines of a log: start, status, microseconds."""
    rows = (line.split("\t") for line in log)
    return [int(row[2]) / 1e6 for row in rows if len(row) == 3 and row[1] == "200"]


def _command(folder: Path, i: int, target: Target, streams: int, seconds: float) -> list[str]:
    headers = [word for header in _HEADERS for word in ("-H", header)]
    return [
        *("h2load", "-t1", "-c1", f"-m{streams}", "-D", f"{round(seconds * 1000)}ms"),
        *("--log-file", str(folder / f"{i}.log")),
        *("-d", str(folder / f"{i}.body"), *headers, f"http://127.0.0.1:{target.port}{target.path}"),
    ]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
