"""Work that must hardly disturb versions that serve on the same cores: on a thread of the lowest priority, or
in a whole process of a lower one.
"""

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


def lower_priority(by: int) -> None:
    """This process' threads, and those that they start from now on, have a "nice" value higher by `by`.

    For good: without privileges a thread never gets its priority back.
    """
    for thread in Path("/proc/self/task").iterdir():
        number = int(thread.name)
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            usual = os.getpriority(os.PRIO_PROCESS, number)
            os.setpriority(os.PRIO_PROCESS, number, min(LOWEST, usual + by))


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
    """Whether the Triton that started this process has others like it, of its priority or a higher one: users
    do not wait for those of a lower one.
    """
    triton, own = os.getppid(), os.getpriority(os.PRIO_PROCESS, 0)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            fields = stat.read_text().rpartition(")")[2].split()
            parent, nice = int(fields[1]), int(fields[16])
            if parent == triton and nice <= own and int(stat.parent.name) != os.getpid():
                return True
    return False
