"""Starting what is measured, waiting for it, and putting load on it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.load import Load
from features.settings import Settings
from features.store import open_store

_READY_S = 180.0
_END_S = 30.0
_USERS = 1000


class BenchmarkError(Exception):
    """Something that the benchmark needs is missing or does not start."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(log: Path, *module: str, **settings: object) -> Iterator[psutil.Process]:
    """`python -m module…` with these settings, until the block ends."""
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


def wait(what: str, log: Path, process: psutil.Process, ready: Callable[[], bool]) -> None:
    """Returns once it is ready.

    Raises:
        BenchmarkError: it ended, or is not ready in time; names its log.
    """
    end = time.monotonic() + _READY_S
    while not ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > end:
            raise BenchmarkError(f"{what} did not start; {log} says why")
        time.sleep(0.1)


def serves_model(port: int) -> bool:
    """Whether the gateway with this HTTP port has a model version to call."""
    try:
        # No proxy: what is asked runs here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(json.load(answer) == {"gateway": "SERVING", "model": "SERVING"})
    except (OSError, ValueError):
        return False


def listens(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load(port: int, users: Sequence[str], in_flight: int, seconds: float, *, floor: bool = False) -> Load:
    """A closed loop from a process of its own (`benchmarks.load`)."""
    command = [sys.executable, "-m", "benchmarks.load", "--target", f"127.0.0.1:{port}"]
    command += ["--in-flight", str(in_flight), "--seconds", str(seconds), *(["--floor"] if floor else [])]
    done = subprocess.run(command, input="\n".join(users), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"the load generator failed: {done.stderr.strip().splitlines()[-1]}")
    return Load(**json.loads(done.stdout))


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process and all that it has started have used."""
    family = [process, *process.children(recursive=True)]
    return float(sum(times.user + times.system for times in (member.cpu_times() for member in family)))


def users_of(settings: Settings) -> list[str]:
    """Some users of the store that the settings name.

    Raises:
        StoreUnavailable: it cannot be opened.
    """

    async def sample() -> list[str]:
        store = open_store(settings)
        try:
            return await store.sample_users(_USERS)
        finally:
            await store.close()

    return asyncio.run(sample())
