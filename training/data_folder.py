"""The folder of prepared data as a whole: one writer at a time, replaced at once, reused if still true."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data_report import DataReport, load_report


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Waits until no other process writes `folder`. The lock goes with its process, however that ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new, empty folder that takes the place of `folder` at the end; after an error, nothing has changed.

    Only its owner can open it, since it may tell what users did. Needs `exclusive`, which is why what a
    killed process left behind may be removed.
    """
    new, old = folder.parent / f".{folder.name}.new", folder.parent / f".{folder.name}.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():  # the second renaming failed
            old.rename(folder)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def earlier_report(folder: Path) -> DataReport | None:
    """The report of `folder` if the folder is whole, else None."""
    try:
        report = load_report(folder / "report.json")
    except (OSError, ValueError, TypeError):
        return None
    needed = [folder / "events.parquet", folder / "items.parquet", folder / "quarantine.csv"]
    if report.users_file is not None:
        needed.append(folder / "users.parquet")
    if report.events_file.exposures:
        needed.append(folder / "exposures.parquet")
    return report if all(path.is_file() for path in needed) else None
