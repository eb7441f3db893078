"""Files taken out of a wheel on the package registry: downloaded, not installed; checked; cached.

Some data and models reach a machine that has nothing but a package registry as wheels only. What is wanted of
one is checked against known digests, so neither the registry nor a damaged disk can put other content in its
place. Code is run from the very bytes that were checked (`read`), never by an import, which would take what
`__pycache__` holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TypeAlias

from training.errors import TrainingError

_DOWNLOAD_TIMEOUT_S = 300

Download: TypeAlias = Callable[[str, Path], Path]
"""Puts the wheel that a requirement names into a folder and returns its path."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel, and which of its files are wanted."""

    requirement: str
    """For pip, with the version: `recbole==1.2.1`."""
    content: str
    """What the files are, as errors call it."""
    folder: str
    """The folder in the wheel that the names in `sha256` start from, with a slash at its end."""
    sha256: Mapping[str, str]
    """The files and the digests they must have."""


def pip_download(requirement: str, folder: Path) -> Path:
    """What pip finds for `requirement`, in `folder`, without its dependencies and without running any of it.

    Raises `TrainingError` if pip fails or takes too long.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        subprocess.run(
            [*command, "--dest", str(folder), requirement],
            check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise TrainingError(f"downloading {requirement} took more than {_DOWNLOAD_TIMEOUT_S} s") from exc
    except subprocess.CalledProcessError as exc:
        lines = [line for line in exc.stderr.splitlines() if line.strip()]
        raise TrainingError(
            f"pip download {requirement} failed: {lines[-1] if lines else 'no message'}"
        ) from exc
    return next(folder.glob("*.whl"))


def fetch(wheel: Wheel, cache: Path, *, download: Download = pip_download) -> dict[str, Path]:
    """The wanted files by their names, below `cache`; downloaded only if they are not there already, whole.

    Raises `TrainingError` if the registry cannot be reached or serves something else; `cache` then has no new
    file.
    """
    files = {name: cache / name for name in wheel.sha256}
    if all(path.is_file() and _digest(path) == wheel.sha256[name] for name, path in files.items()):
        return files
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        try:
            archive = download(wheel.requirement, Path(folder))
        except TrainingError as exc:
            raise TrainingError(f"{wheel.content} could not be fetched, as {exc}") from exc
        parts = _take_out(wheel, archive, Path(folder) / "parts")
        for name, part in parts.items():
            files[name].parent.mkdir(parents=True, exist_ok=True)
            part.replace(files[name])
    return files


def read(wheel: Wheel, name: str, path: Path) -> bytes:
    """The content of a file that `fetch` gave: read once, so that what is used is what was checked.

    Raises `TrainingError` if it is another by now, or gone.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise TrainingError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if sha256(content).hexdigest() != wheel.sha256[name]:
        raise TrainingError(f"{path} is not the file it should be: its sha256 differs")
    return content


def _take_out(wheel: Wheel, path: Path, target: Path) -> dict[str, Path]:
    parts = {name: target / name for name in wheel.sha256}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, part in parts.items():
                part.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(wheel.folder + name) as packed, part.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                if _digest(part) != wheel.sha256[name]:
                    raise TrainingError(
                        f"{name} in {path.name} is not the file it should be: its sha256 differs"
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as exc:
        raise TrainingError(f"{path.name} does not hold {wheel.content}: {exc}") from exc
    return parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
