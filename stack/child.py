"""A child process: started, watched, ended, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from stack.errors import StackError
from stack.logs import NewLines, tail

_TETHER = Path(__file__).with_name("tether.py")
_PR_SET_CHILD_SUBREAPER = 36


class Child:
    """A Python module that runs as a process and process group of its own."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, log: Path | None, said: NewLines | None
    ) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._said = said

    @classmethod
    async def start(cls, name: str, module: Sequence[str], *, log: Path | None = None) -> Self:
        """Starts `python -m module...`; it gets SIGTERM should this process die.

        Args:
            name: what people call it.
            module: the module and its arguments.
            log: file that its output is appended to; None: it writes where this process writes.

        To be called on the main thread: Linux ties a child to the thread that started it.
        """
        command = [sys.executable, "-S", "-E", str(_TETHER), str(os.getpid()), sys.executable, "-m", *module]
        with contextlib.ExitStack() as files:
            out = said = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                out = files.enter_context(log.open("ab"))
                said = NewLines(log)
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=None if out is None else subprocess.STDOUT,
                # Ctrl-C in a terminal reaches a whole process group; the order of ending is decided here.
                process_group=0,
            )
        return cls(name, process, log, said)

    async def wait(self) -> int:
        """Its exit status, once it has ended; minus the signal's number if a signal ended it."""
        return await self._process.wait()

    async def stop(self, grace_s: float, first: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end; after `grace_s` ends its whole group. Returns when it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(first)
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def has_said(self, beginning: str) -> bool:
        """Whether a line that it wrote to its log since the last call begins with these words."""
        return self._said is not None and any(line.startswith(beginning) for line in self._said.read())

    def ended(self, status: int) -> StackError:
        """The error that says so: where its log is, and how it ends."""
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        lines = [f"{self.name} ended by itself ({how})"]
        if self.log is not None:
            lines[0] += f"; the end of its log, {self.log}:"
            lines += [f"  {line}" for line in tail(self.log)]
        return StackError("\n".join(lines))


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends, so that none gets away."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(grace_s: float) -> None:
    """Ends every process that is still a child of this one. Not beside an event loop's own children."""
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while _reap():
        late = time.monotonic() > deadline
        for pid in _children():
            if late or pid not in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(pid)
        time.sleep(0.02)


def _reap() -> bool:
    """Collects the children that have ended; whether any are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> Iterator[int]:
    me = os.getpid()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # After the name in parentheses, which may hold anything: state, parent.
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == me:
                    yield int(folder.name)
