"""Between the launcher and Triton: sees to it that nothing of Triton outlives the launcher, however that
ends.

    python guardian.py PID_FILE SHM_PREFIX GRACE_S PROGRAM ARGUMENT…

starts the program in a process group of its own and writes its process id to PID_FILE. When the guardian's
standard input closes (the launcher ended it, or died) or it gets SIGTERM, the group gets SIGTERM, and SIGKILL
after GRACE_S seconds. When the program ends, the rest of the group (the Python backend's stubs) is killed and
reaped, its shared-memory regions are removed, and the guardian exits with the program's status, 128 + n for
signal n.

A program of its own, and only the standard library: the launcher may be killed at any moment, this one is
not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(pid_file: Path, prefix: str, grace_s: float, command: list[str]) -> int:
    """Run `command`; returns the exit status."""
    libc = ctypes.CDLL(None)
    libc.prctl(
        PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    )  # orphaned stubs become our children, so they can be waited for
    closing = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        # Should the guardian itself be killed, the kernel takes Triton along. Runs between fork and exec.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
    )
    pid_file.write_text(f"{child.pid}\n")

    def end_group() -> None:
        if not closing.is_set():
            closing.set()
            _signal_group(child.pid, signal.SIGTERM)
            killer = threading.Timer(grace_s, _signal_group, (child.pid, signal.SIGKILL))
            killer.daemon = True
            killer.start()

    def watch_launcher() -> None:
        while sys.stdin.buffer.read(1):
            pass
        end_group()

    signal.signal(signal.SIGTERM, lambda *_: end_group())
    threading.Thread(target=watch_launcher, daemon=True).start()
    status = child.wait()
    _signal_group(child.pid, signal.SIGKILL)
    _reap()
    pid_file.unlink(missing_ok=True)
    remove_regions(prefix)
    return 128 - status if status < 0 else status


def remove_regions(prefix: str) -> None:
    """Remove the shared-memory regions whose name starts with `prefix`."""
    for region in SHARED_MEMORY.glob(prefix + "*"):
        region.unlink(missing_ok=True)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _reap() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    status = main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:])
    sys.stdout.flush()
    # Not sys.exit: a thread may still be blocked on standard input, and its lock would stop the interpreter's
    # end.
    os._exit(status)
