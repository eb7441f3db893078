"""Starting what is measured, waiting for it, and looking at what it uses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import generators
from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.target import recommend
from features.settings import PREFIX, Settings
from features.store import open_store

__all__ = ["BenchmarkError"]

_READY_S = 180.0
_END_S = 30.0
_USERS = 1000
TETHER = Path(__file__).parents[1] / "stack" / "tether.py"
"""Lets a process end with the one that started it, however that ended."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with these settings, and with none of the caller's shell."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    return kept | {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}


def programs(settings: Settings) -> dict[str, Any]:
    """Where Triton is, for `environment`: on each machine elsewhere, so that it is the caller's to say."""
    found = {"triton_python": settings.triton_python, "tritonserver": settings.tritonserver}
    return {name: path.absolute() for name, path in found.items() if path is not None}


@contextmanager
def running(
    log: Path,
    *module: str,
    python: Path | None = None,
    variables: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[psutil.Process]:
    """`python -m module…` with these settings, until the block ends; then nothing of it is left."""
    env = {**environment(**settings), **(variables or {})}
    with running_command(log, str(python or sys.executable), "-m", *module, env=env) as process:
        yield process


@contextmanager
def running_command(log: Path, *command: str, env: Mapping[str, str]) -> Iterator[psutil.Process]:
    """The same of any program. Ctrl-C reaches it by this process alone, so that it is ended in order."""
    tethered = [sys.executable, "-S", "-E", str(TETHER), str(os.getpid()), *command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            tethered,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            process_group=0,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            # Noted before: who has lost its parent is not found any more.
            left = [] if process.poll() is not None else _descendants(psutil.Process(process.pid))
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _, alive = psutil.wait_procs(left, timeout=2.0)
            for member in alive:
                with suppress(psutil.NoSuchProcess):
                    member.kill()


def wait(
    what: str, log: Path, process: psutil.Process, ready: Callable[[], bool], limit_s: float = _READY_S
) -> None:
    """Returns once it is ready.

    Raises:
        BenchmarkError: it ended, or is not ready in time; names its log.
    """
    end = time.monotonic() + limit_s
    while not ready():
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE or time.monotonic() > end:
            raise BenchmarkError(f"{what} did not start; {log} says why")
        time.sleep(0.1)


def run_module(*words: str, limit_s: float = 1800.0, **settings: object) -> str:
    """What `python -m words…` prints, once it is done.

    Raises:
        BenchmarkError: it fails; with what it said.
    """
    return run_command([sys.executable, "-m", *words], environment(**settings), limit_s)


def run_in_triton(settings: Settings, *words: str, limit_s: float = 600.0, **variables: str) -> str:
    """The same in Triton's environment, with these environment variables as well.

    Raises:
        BenchmarkError: it fails; with what it said.
    """
    # What it imports of ours is in the folder above; nothing is installed.
    path = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return run_command(
        [str(settings.triton_python), "-m", *words], {**environment(), **path, **variables}, limit_s
    )


def run_command(command: Sequence[str], env: Mapping[str, str], limit_s: float) -> str:
    """What a program prints, once it is done.

    Raises:
        BenchmarkError: it fails, with what it said; or takes longer than `limit_s`, seconds.
    """
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(command)}: not done after {limit_s:.0f} s") from error
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)}: {(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout


def http_get(port: int, path: str, host: str = "127.0.0.1") -> bytes | None:
    """What an HTTP server of this machine answers; None if it does not answer with status 200."""
    # No proxy: what is asked runs here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{port}{path}", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def serves_model(port: int, host: str = "127.0.0.1") -> bool:
    """Whether the gateway with this HTTP port has a model version to call."""
    said = http_get(port, "/readyz", host)
    try:
        return said is not None and json.loads(said) == {"gateway": "SERVING", "model": "SERVING"}
    except ValueError:
        return False


def listens(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load(port: int, users: Sequence[str], in_flight: int, seconds: float) -> Observed:
    """A closed loop of `Recommend` from our own generator."""
    return generators.closed(recommend(port, users), in_flight, seconds, own=True)


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process and all that it has started have used."""
    total = 0.0
    for member in family(process):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system
    return total


def family(process: psutil.Process) -> list[psutil.Process]:
    """The process and all that it has started, as far as they run."""
    return [process, *_descendants(process)]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


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
