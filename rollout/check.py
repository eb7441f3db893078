"""Whether a candidate is as it was published, and whether there is room for it: before Triton hears of it."""

from __future__ import annotations

import psutil

from features.catalog import Catalog, CatalogError
from features.settings import Settings
from inference.server import pid_file
from inference.tensorflow_backend.memory_guard import free_bytes
from rollout.errors import PreflightFailed
from rollout.manifest import hash_files
from rollout.repository import PublishedVersion

_UNSTABLE = {"manifest.json"}
_PROCESSES = 2
_FIRST_PROCESS_BYTES = 700 << 20
"""What TensorFlow and a small model take, where no running version shows it."""
_MODEL_FACTOR = 2
"""Variables are read from the file into tensors: for a moment both are in memory."""


def check_files(candidate: PublishedVersion) -> None:
    """Compares every file of the version with the hash in its manifest. Takes a second per GB.

    Raises:
        PreflightFailed: naming the first file that differs, is missing, or should not be there.
    """
    if candidate.manifest is None:
        raise PreflightFailed(f"{candidate.folder}: has no manifest.json that can be read; publish it again")
    said = candidate.manifest.files
    names = [path.name for path in candidate.folder.iterdir() if path.name not in _UNSTABLE]
    found = hash_files(candidate.folder, names)
    for name in sorted(said.keys() | found.keys()):
        if said.get(name) != found.get(name):
            what = (
                "is missing"
                if name not in found
                else "is not in the manifest"
                if name not in said
                else "is not the file that was published: its sha256 differs from that in manifest.json"
            )
            raise PreflightFailed(f"{candidate.folder / name}: {what}; publish the version again")
    try:
        Catalog(candidate.folder / "catalog.lmdb").close()
    except CatalogError as error:
        raise PreflightFailed(str(error)) from error


def check_memory(candidate: PublishedVersion, settings: Settings) -> None:
    """Whether the machine has room for a second version. A Triton elsewhere is not asked.

    A version is two processes with TensorFlow in them, its recommender and its encoder: each will take what
    the largest of those takes that run, and the version's own files on top.

    Raises:
        PreflightFailed: it has not; with the figures.
    """
    if settings.triton_address is not None:
        return
    savedmodel = sum(
        path.stat().st_size for path in (candidate.folder / "model.savedmodel").rglob("*") if path.is_file()
    )
    process = max(_stubs_rss(settings), default=_FIRST_PROCESS_BYTES) + _MODEL_FACTOR * savedmodel
    needed = _PROCESSES * process
    free = free_bytes()
    if needed > free:
        raise PreflightFailed(
            f"version {candidate.version} needs about {needed >> 20} MiB beside the stable version, and "
            f"{free >> 20} MiB are free on this machine"
        )


def _stubs_rss(settings: Settings) -> list[int]:
    try:
        server = psutil.Process(int(pid_file(settings).read_text()))
        return [child.memory_info().rss for child in server.children(recursive=True)]
    except (OSError, ValueError, psutil.Error):
        return []
