"""Sees to it that a version which wants more memory than there is fails alone, while it loads."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

SHARE = 0.8
"""Part of the free memory that a version may take: the rest is for those that serve."""

FIRST_TO_GO = 500
"""How much of the machine's memory, in thousandths, the kernel adds to a process when it looks for one to
kill."""

_OOM = Path("/proc/self/oom_score_adj")
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file", Path("/sys/fs/cgroup")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", Path("/sys/fs/cgroup/memory")),
)
"""Names of limit, use and reclaimable file cache, in a control group of version 2 and 1."""


@contextlib.contextmanager
def memory_guard(*, limit: bool, expendable: bool = False) -> Iterator[None]:
    """While it lasts, this process is the first that the kernel kills for memory. With `limit` it may take no
    more than `SHARE` of what is free; to ask for more is an error of who asks.

    Both end with it. The limit was drawn from what happened to be free at one moment, and a version serves
    for weeks. Only one that is `expendable`, since users can do without it, stays the first to be killed.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    oom = _OOM.read_text()
    with contextlib.suppress(OSError):  # a container may forbid it: then the kernel chooses by size alone
        _OOM.write_text(str(min(1000, int(oom) + FIRST_TO_GO)))
    if limit:
        most = _taken() + int(SHARE * free_bytes())
        if before[0] == resource.RLIM_INFINITY or most < before[0]:
            resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        if not expendable:
            with contextlib.suppress(OSError):
                _OOM.write_text(oom)


def free_bytes() -> int:
    """What processes can still get: of the machine, or of its control group if that has less."""
    free = _value(Path("/proc/meminfo"), "MemAvailable:") * 1024
    for limit_name, used_name, cache_name, folder in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            limit = int((folder / limit_name).read_text())
            used = int((folder / used_name).read_text()) - _value(folder / "memory.stat", cache_name)
            free = min(free, max(0, limit - used))
    return free


def _taken() -> int:
    """What counts towards RLIMIT_DATA by now."""
    return _value(Path("/proc/self/status"), "VmData:") * 1024


def _value(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        fields = line.split()
        if fields and fields[0] == name:
            return int(fields[1])
    raise ValueError(f"{path}: has no {name}")
