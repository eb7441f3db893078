"""Putting load on a target: with the generator in C if it is there, else with our own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import h2load, wrk
from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.target import Target, write_bodies

_OVERTIME_S = 60.0
_FEWEST_TURNS = 5
OWN_BELOW = 64
"""Calls in flight, below which ours is taken: h2load would have all calls, or a few, name the same users, and
ours costs nobody anything while there are few calls."""


def closed(
    target: Target, in_flight: int, seconds: float, *, own: bool = False, folder: Path | None = None
) -> Observed:
    """A closed loop of `in_flight` calls.

    Args:
        own: by our generator, which looks at answers and varies all bodies; always so below `OWN_BELOW`.
        folder: where temporary files go; None: where the system has them.

    Raises:
        BenchmarkError: the generator fails.
    """
    if target.protocol == "http":
        run, available = wrk.run, wrk.available()
    else:
        run, available = h2load.run, h2load.available()
    if available and not own and in_flight >= OWN_BELOW:
        observed = run(target, in_flight, seconds, folder)
        # They hang up when their time is over: of answers that take seconds they see none, or too few for a
        # rate. Ours waits for what is in flight, and divides by the time that it took.
        if observed.answered >= _FEWEST_TURNS * in_flight:
            return observed
    with begun(target, seconds, in_flight=in_flight, folder=folder) as load:
        return load.result()


def open_loop(
    target: Target, per_s: float, seconds: float, seed: int = 1, folder: Path | None = None
) -> Observed:
    """Calls that leave at the moments of a Poisson process (`benchmarks.open_loop`).

    Raises:
        BenchmarkError: the generator fails.
    """
    with begun(target, seconds, per_s=per_s, seed=seed, folder=folder) as load:
        return load.result()


class Load:
    """Our generator, running."""

    def __init__(self, process: subprocess.Popen[str], target: Target, limit_s: float) -> None:
        self._process, self._target, self._limit_s = process, target, limit_s

    @property
    def ended(self) -> bool:
        """Whether it has ended, of itself or not."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """No further call of an open loop leaves; `result` is of those that have."""
        self._process.terminate()

    def result(self) -> Observed:
        """What it saw; waits for its end.

        Raises:
            BenchmarkError: it failed.
        """
        try:
            out, error = self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired as late:
            raise BenchmarkError("the load generator does not end") from late
        if self._process.returncode:
            raise BenchmarkError(f"the load generator failed: {(error.strip().splitlines() or ['?'])[-1]}")
        return Observed(**json.loads(out))


@contextmanager
def begun(
    target: Target,
    seconds: float,
    *,
    in_flight: int | None = None,
    per_s: float | None = None,
    seed: int = 1,
    folder: Path | None = None,
) -> Iterator[Load]:
    """Our generator, started; it has ended when the block has."""
    how = ["--in-flight", str(in_flight)] if in_flight else ["--per-s", str(per_s), "--seed", str(seed)]
    with tempfile.TemporaryDirectory(dir=folder) as own:
        bodies = Path(own) / "bodies"
        write_bodies(bodies, target.bodies)
        command = [sys.executable, "-m", "benchmarks.load", "--port", str(target.port), "--path", target.path]
        command += ["--bodies", str(bodies), "--seconds", str(seconds), *how]
        command += ["--http"] if target.protocol == "http" else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield Load(process, target, seconds + _OVERTIME_S)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
