"""`manifest.json` of a published version: what it is, where it comes from, the hash of each of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """One published version."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    created: str
    """When it was published, ISO 8601 in UTC."""
    export: str
    """Name of the export folder."""
    trained: str
    """When it was exported, ISO 8601."""
    data_fingerprint: str
    code_revision: str
    seed: int
    hyper_parameters: dict[str, Any]
    metrics: dict[str, Any]
    widths: dict[str, int]
    inputs: list[str] = []
    """Names of the inputs that it takes; none in a version of a release without optional ones."""
    attributes: list[str] = []
    """Names of the user attributes that it takes, in the order of `user_features`."""
    consumes: list[str] | None = None
    """Types of events whose items are not recommended again; None: all types."""
    ignores: list[str] = []
    """Types of events that are no part of the history that it reads."""
    index: dict[str, str | int | float] | None = None
    """How it finds candidates, and its measured recall; None: by the score of every item."""
    vectors_may_lag: bool = False
    """Whether its encoder is too slow to run with requests, so that gateways let user vectors lag unless they
    are told otherwise."""
    tensorflow: str
    """TensorFlow of the serving environment in which it passed preflight."""
    files: dict[str, str]
    """sha256 of each file, by its path inside the version's folder."""

    def text(self) -> str:
        """The JSON that is written."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the version in `folder`; None if it has none that can be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def hash_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of each of the files and folders `names` in `folder`, by relative path, in their order."""
    paths = [
        path for name in names for path in (folder / name, *(folder / name).rglob("*")) if path.is_file()
    ]
    hashes = {}
    for path in sorted(paths):
        with path.open("rb") as file:
            hashes[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
