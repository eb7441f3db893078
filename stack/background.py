"""`stack up`, `down` and `status`: the same stack as a process of its own session."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from features.settings import Settings
from features.state_folder import make_state_folder
from stack.instance import Instance, Phase, running
from stack.logs import set_aside

_POLL_S = 0.1
# What ending may take: draining, Triton, orphans, each with its own limit.
_END_MARGIN_S = 60.0


def up(settings: Settings, run_arguments: Sequence[str]) -> int:
    """Starts `stack run` in the background, shows its output until it is ready; returns the exit status.

    One that is starting is waited for, one that is ending is outlasted.
    """
    make_state_folder(settings.state_dir)
    with _one_at_a_time(settings.state_dir):
        return _up(settings, run_arguments)


@contextlib.contextmanager
def _one_at_a_time(state_dir: Path) -> Iterator[None]:
    """Waits for other `up`s of this folder: what they start does not say so at once."""
    with (state_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make up is at work; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _up(settings: Settings, run_arguments: Sequence[str]) -> int:
    found = running(settings.state_dir)
    if found is not None and found.phase == "stopping":
        print(f"process {found.pid} is ending; this one starts after it", flush=True)
        found = _once_not("stopping", settings.state_dir)
    if found is not None and found.phase == "starting":
        print(f"process {found.pid} is starting already; waiting until it is ready", flush=True)
        other, found = found, _once_not("starting", settings.state_dir)
        if found is None or found.phase != "ready":
            print(f"process {other.pid} has ended before it was ready")
            return 1
    if found is not None:
        print(f"already up: {describe(settings, found)}")
        return 0
    log = settings.state_dir / "log" / "stack.log"
    set_aside(log)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", "run", "--background", *run_arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # It writes to a file: give its tables the width of the terminal that will show them.
            env={**os.environ, "COLUMNS": str(shutil.get_terminal_size((120, 40)).columns)},
        )
    # Until it is ready, whoever ends this command ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with log.open("rb") as output:
        try:
            status = _follow(settings.state_dir, process, output)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            return 130
    if status is None:
        print(f"up in the background; its log is {log}")
        return 0
    return status or 1


def _once_not(phase: Phase, state_dir: Path) -> Instance | None:
    """Waits until no stack of this folder is in the phase; the one that runs then, if one does."""
    while (found := running(state_dir)) is not None and found.phase == phase:
        time.sleep(_POLL_S)
    return found


def _follow(state_dir: Path, process: subprocess.Popen[bytes], output: BinaryIO) -> int | None:
    """Copies the output to the terminal until the stack is ready (None), or has ended (its status)."""
    while True:
        status = process.poll()
        found = running(state_dir)
        ready = found is not None and found.pid == process.pid and found.phase == "ready"
        # After the two questions above, so that nothing written before their answers is left out.
        sys.stdout.write(output.read().decode(errors="replace"))
        sys.stdout.flush()
        if status is not None:
            return status
        if ready:
            return None
        time.sleep(_POLL_S)


def down(settings: Settings) -> int:
    """Ends the stack of this state folder and waits until all of it is gone; returns the exit status."""
    found = running(settings.state_dir)
    if found is None:
        print("not up")
        return 0
    if not found.end(settings.drain_s + _END_MARGIN_S):
        print(f"process {found.pid} has not ended; its log is {settings.state_dir / 'log' / 'stack.log'}")
        return 1
    print("down")
    return 0


def status(settings: Settings) -> int:
    """Says whether the stack is up; 0 if it is ready, 1 if not."""
    found = running(settings.state_dir)
    print("not up" if found is None else describe(settings, found))
    return 0 if found is not None and found.phase == "ready" else 1


def describe(settings: Settings, found: Instance) -> str:
    """Who runs, how far it has come, and where it listens."""
    host = settings.gateway_host
    return (
        f"{found.phase}, process {found.pid}; gRPC {settings.gateway_target}, "
        f"HTTP {host}:{settings.http_port}, Triton {settings.triton_target}"
    )
