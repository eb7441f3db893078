"""Version numbers of one model: they only go up, and none is given twice, not even that of a deleted version.

Triton compares modification times to tell whether a version changed; a number that comes back with older
files would silently not be loaded, and a cached user vector of the old one would be taken for one of the new.
"""

from __future__ import annotations

import json
from pathlib import Path

from inference.repository import versions_present
from rollout.durable import write_atomically
from rollout.errors import VersionTaken
from rollout.workbench import workbench


def ledger_file(model_folder: Path) -> Path:
    """Where the highest number is noted."""
    return workbench(model_folder) / "versions.json"


def highest_ever(model_folder: Path) -> int:
    """The highest number that was ever given, 0 if none."""
    try:
        recorded = int(json.loads(ledger_file(model_folder).read_text())["highest"])
    except FileNotFoundError:
        recorded = 0
    except (ValueError, KeyError, TypeError) as exc:
        raise VersionTaken(
            f'{ledger_file(model_folder)}: must be {{"highest": <number>}}; correct it by hand'
        ) from exc
    return max([recorded, *versions_present(model_folder)])


def choose(model_folder: Path, wanted: int | None) -> int:
    """The number to publish under: `wanted`, or the next one.

    Raises:
        VersionTaken: `wanted` is not above every number given before.
    """
    highest = highest_ever(model_folder)
    if wanted is None:
        return highest + 1
    if wanted in versions_present(model_folder):
        raise VersionTaken(f"version {wanted} is published already; leave --version out to get {highest + 1}")
    if wanted <= highest:
        raise VersionTaken(
            f"version {wanted} was used before or is below one that was; "
            f"numbers only go up, the next is {highest + 1}"
        )
    return wanted


def record(model_folder: Path, version: int) -> None:
    """Note that `version` is given; before it appears, so a crash wastes a number and never repeats one."""
    write_atomically(ledger_file(model_folder), (json.dumps({"highest": version}) + "\n").encode())
