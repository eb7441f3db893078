"""The published versions of a model: what there is, and which may be deleted."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from features.encoder_name import encoder_name
from inference.repository import versions_present
from rollout.errors import NoSuchVersion
from rollout.manifest import Manifest, read_manifest
from rollout.workbench import workbench

_REMOVED_PREFIX = "removed-"


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version's folder and what it says of itself."""

    version: int
    folder: Path
    manifest: Manifest | None
    """None: it has none that can be read."""
    size_bytes: int


def published(model_folder: Path) -> list[PublishedVersion]:
    """All versions, oldest first."""
    return [_read(model_folder / str(version), version) for version in versions_present(model_folder)]


def newest(model_folder: Path) -> int:
    """The number of the newest version.

    Raises:
        NoSuchVersion: none is published.
    """
    versions = versions_present(model_folder)
    if not versions:
        raise NoSuchVersion(f"{model_folder}: no version is published; run make publish")
    return versions[-1]


def find(model_folder: Path, version: int) -> PublishedVersion:
    """One version.

    Raises:
        NoSuchVersion: it is not published.
    """
    present = versions_present(model_folder)
    if version not in present:
        have = ", ".join(map(str, present)) or "none"
        raise NoSuchVersion(f"version {version} is not published; published are: {have}")
    return _read(model_folder / str(version), version)


def prune(model_folder: Path, keep: int, in_use: Collection[int]) -> list[int]:
    """Deletes all versions but the `keep` newest and those `in_use`; the numbers that were deleted.

    Encoders go with their version, and with one that somebody else deleted.

    Args:
        model_folder: the model's folder in the repository.
        keep: at least 1.
        in_use: loaded in Triton, or to be loaded after its next start.
    """
    bench = workbench(model_folder)
    for leftover in bench.glob(f"{_REMOVED_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    present = versions_present(model_folder)
    removed = [version for version in present[:-keep] if version not in in_use]
    for version in removed:
        _remove(model_folder, version)
    encoder_folder = model_folder.with_name(encoder_name(model_folder.name))
    for version in versions_present(encoder_folder):
        if version not in in_use and version not in versions_present(model_folder):
            _remove(encoder_folder, version)
    return removed


def _remove(model_folder: Path, version: int) -> None:
    # Out of sight in one step: nobody may find half a version.
    hidden = workbench(model_folder) / f"{_REMOVED_PREFIX}{version}"
    shutil.rmtree(hidden, ignore_errors=True)
    (model_folder / str(version)).rename(hidden)
    shutil.rmtree(hidden)


def _read(folder: Path, version: int) -> PublishedVersion:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return PublishedVersion(version, folder, read_manifest(folder), size)
