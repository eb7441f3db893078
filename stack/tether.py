"""Runs a program that must not outlive the process that started it.

`python tether.py PARENT_PID PROGRAM ARGUMENT...`: asks Linux for SIGTERM when the parent dies, then becomes
the program. Not a `preexec_fn`: running Python between fork and exec is unsafe in a process that has threads,
and gRPC has. It imports next to nothing, so it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Does not return."""
    parent, program = int(argv[1]), argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv)
