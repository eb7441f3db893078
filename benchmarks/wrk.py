"""The load generator in C for JSON over HTTP/1.1: `wrk`, with a script that takes the bodies in turn.

wrk adds calls that it thinks a slow answer kept it from making, so its p99 is higher than what calls took:
percentiles are compared by our own generator.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.target import Target

_SCRIPT = """
local bodies = {{{bodies}}}
local turn = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  turn = turn % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[turn])
end
"""
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_OVERTIME_S = 30.0


def available() -> bool:
    """Whether it is installed (Debian: wrk)."""
    return shutil.which("wrk") is not None


def run(target: Target, in_flight: int, seconds: float, within: Path | None = None) -> Observed:
    """A closed loop of `in_flight` connections; seconds are whole ones. Its script is below `within`.

    Raises:
        BenchmarkError: it fails.
    """
    before = _cpu_s()
    with tempfile.TemporaryDirectory(dir=within) as folder:
        script = Path(folder) / "bodies.lua"
        # A JSON string of ASCII is a Lua string, too: neither escapes anything else in what we send.
        script.write_text(
            _SCRIPT.format(bodies=",".join(json.dumps(body.decode()) for body in target.bodies))
        )
        command = [
            "wrk",
            "-t1",
            f"-c{in_flight}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "5s",
            "--latency",
        ]
        command += ["-s", str(script), f"http://127.0.0.1:{target.port}{target.path}"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + _OVERTIME_S
            )
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"wrk does not end: {error}") from error
    if done.returncode:
        raise BenchmarkError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout, len(target.bodies), _cpu_s() - before)


def parse(said: str, bodies: int, cpu_s: float) -> Observed:
    """What wrk prints.

    Raises:
        BenchmarkError: it is not that.
    """
    made = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", said)
    percentiles = {
        p: float(v) * _MS[unit] for p, v, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s|m)\b", said)
    }
    if made is None or not {"50", "99"} <= percentiles.keys():
        raise BenchmarkError(f"wrk says what is not understood: {said.strip()[-200:]!r}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    bad = int(refused[1]) if refused else 0
    lost = sum(map(int, broken.groups())) if broken else 0
    seconds = float(made[2]) * _MS[made[3]] / 1000
    return Observed(
        f"wrk, {bodies}",
        int(made[1]) - bad,
        bad + lost,
        seconds,
        None,
        percentiles["50"],
        percentiles["99"],
        cpu_s / seconds,
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
