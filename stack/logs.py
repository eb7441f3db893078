"""The log files of the processes that the stack starts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TAIL_LINES = 15
_TAIL_BYTES = 16_384


def set_aside(log: Path) -> None:
    """Renames a log that is there to `….1`, in place of an older one; makes its folder."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(f"{log.name}.1"))


def tail(log: Path, lines: int = _TAIL_LINES) -> list[str]:
    """The last lines of a file, however large it is."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-lines:]


class NewLines:
    """The lines that are appended to a file from now on, each read once."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = log.stat().st_size

    def read(self) -> list[str]:
        """The whole lines since the last call; one that has not ended yet is left for the next."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._read += len(whole) + 1
        return whole.decode(errors="replace").split("\n")
