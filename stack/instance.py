"""The one stack that may run from a state folder: it holds `stack.lock`, and `stack.json` says who it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from features.state_folder import make_state_folder
from stack.errors import StackError

Phase = Literal["starting", "ready", "stopping"]


@dataclass(frozen=True, slots=True)
class Instance:
    """A running stack. `started` is the kernel's start time of the process: a pid alone may be reused."""

    pid: int
    started: int
    phase: Phase

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return process_start(self.pid) == self.started

    def end(self, timeout_s: float) -> bool:
        """Sends SIGTERM and waits until the process is gone; False if it is not within `timeout_s`."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # Checked after the handle was taken: from here on it cannot come to mean another process.
            if not self.alive():
                return True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            return bool(waiting.poll(timeout_s * 1000))
        finally:
            os.close(handle)


def process_start(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if there is no such process, or it has ended."""
    try:
        # After the name in parentheses, which may hold anything: the state is field 3, the start field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def running(state_dir: Path) -> Instance | None:
    """The stack that runs from this state folder, if one does."""
    try:
        found = Instance(**json.loads((state_dir / "stack.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive() else None


def announce(state_dir: Path, phase: Phase) -> None:
    """Writes who this process is and how far it has come.

    Raises:
        OSError: it cannot be written. What was written before, and is no longer so, has gone.
    """
    pid = os.getpid()
    started = process_start(pid)
    assert started is not None, "a process finds itself in /proc"
    temporary = state_dir / "stack.json.new"
    try:
        temporary.write_text(json.dumps(asdict(Instance(pid, started, phase))))
        temporary.replace(state_dir / "stack.json")
    except OSError:
        (state_dir / "stack.json").unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Inside, this process is the stack of the state folder; StackError if another is."""
    make_state_folder(state_dir)
    # Not inherited by children (PEP 446): the lock ends with this process, however it ends.
    lock = os.open(state_dir / "stack.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = running(state_dir)
            who = f" (process {other.pid})" if other else ""
            raise StackError(f"already up{who}: end it with make down", status=2) from None
        try:
            announce(state_dir, "starting")
            yield
        finally:
            (state_dir / "stack.json").unlink(missing_ok=True)
    finally:
        os.close(lock)
