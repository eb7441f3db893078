"""Work that must hardly disturb versions that serve on the same cores: on a thread of the lowest priority."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

LOWEST = 19
"""The kernel's lowest priority, its "nice" value."""

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> T:
    """What `work` returns or raises, run on a thread of its own at the lowest priority while this one waits.

    Where this Triton has no other version to disturb, users wait for this one: it is run as it is then.

    Without privileges a thread never gets its priority back, and threads that it starts inherit it: so the
    thread ends with `work`, and what makes threads for later is not for `work`.
    """
    if not _others_serve():
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)  # Linux: of this thread alone
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="background")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _others_serve() -> bool:
    """Whether the Triton that started this process has others like it."""
    triton = os.getppid()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == triton and int(stat.parent.name) != os.getpid():
                return True
    return False
