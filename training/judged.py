"""What became of each user who was judged, one row a user, in a file beside the means.

Two rankers judged by the same users can be compared user by user (`training.significance`) and by kinds of
users and items (`training.slices`). The files name no user: a row has a hash of the user id, keyed with a
secret of the state folder, without which nobody can tell whose it is. Models of one state folder compare;
those of two do not. The rows of a user who is forgotten later stay until the run or the version is deleted.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

_VALUES = "values:"
_TEXTS = ("ranker", "data", "protocol")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The rows of one ranker under one protocol; B users, M targets."""

    ranker: str
    data: str
    """Fingerprint of the prepared data."""
    protocol: str
    """The split with its moments, and the stage."""
    users: NDArray[np.int64]
    """`[B]`, `user_hash` of the user id."""
    lengths: NDArray[np.int32]
    """`[B]`, events known of the user."""
    top: NDArray[np.int32]
    """`[B, 10]`, catalogue indices from 1, best first; narrower only if the catalogue is."""
    target_counts: NDArray[np.int32]
    """`[B]`, targets of the user, ≥ 1; their sum is M."""
    target_ranks: NDArray[np.int32]
    """`[M]`, slot of each target from 1, 0 beyond the largest cut-off; those of the first user first."""
    target_deciles: NDArray[np.int8]
    """`[M]`, `training.exposure.popularity_deciles` of each target; 0 for a cold one."""
    values: dict[str, NDArray[np.float64]]
    """`hr@10`, `ndcg@10`, … → `[B]`, one value a user."""
    asked: NDArray[np.int64] | None = None
    """`[B]`, `asked_hash` of each user; None in a file of before there was one."""

    @property
    def cutoffs(self) -> list[int]:
        """The k of the metrics, in order."""
        return sorted({int(name.split("@")[1]) for name in self.values})


def user_hash(user_id: str, key: bytes) -> int:
    """A signed 64-bit hash of a user id, BLAKE2b with `key` (at most 64 bytes)."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=8, key=key).digest(), "little", signed=True)


def asked_hash(user_id: str, targets: NDArray[np.int32], length: int, key: bytes) -> int:
    """What a user was judged by, as 64 bits: int32 `[n]` targets in order, and the events known before them.

    Two models that saw other events of one log have different ones. Keyed, and with the user in it: else the
    few items there are could be tried until one fits.
    """
    said = f"{user_id}\0{length}\0{','.join(map(str, targets.tolist()))}"
    return user_hash(said, key)


def judging_key(folder: Path) -> bytes:
    """The secret of a state folder for `user_hash`, made when first asked for; only its owner can read it."""
    path = folder / "judging_key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:  # made with mode 600
            file.write(secrets.token_bytes(32))
            file.flush()
            # Whole, and the first one stays: another process may be making it, too.
            with suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_bytes()


def joined(parts: Sequence[Judged]) -> Judged:
    """The rows of all parts, in order; the parts are of one ranker, data set and protocol."""
    arrays: dict[str, Any] = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Judged)
        if field.name not in (*_TEXTS, "values") and getattr(parts[0], field.name) is not None
    }
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    texts = {name: getattr(parts[0], name) for name in _TEXTS}
    return Judged(**texts, **arrays, values=values)


def save_judged(path: Path, rankers: Sequence[Judged]) -> None:
    """Writes one `.npz` file, whole or not at all: the arrays of ranker i under `i/`."""
    arrays: dict[str, Any] = {}
    for i, judged in enumerate(rankers):
        for field in fields(Judged):
            if field.name != "values" and (value := getattr(judged, field.name)) is not None:
                arrays[f"{i}/{field.name}"] = np.asarray(value)
        arrays |= {f"{i}/{_VALUES}{name}": values for name, values in judged.values.items()}
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(path)


def load_judged(path: Path) -> list[Judged]:
    """The rankers that `save_judged` wrote, in its order.

    Raises:
        TrainingError: there is no such file, or it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        rankers = [_ranker(arrays, i) for i in range(sum(name.endswith("/users") for name in arrays))]
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: there is no such file") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path}: cannot be read as judged users ({error})") from error
    if not rankers:
        raise TrainingError(f"{path}: holds no judged users")
    return rankers


def _ranker(arrays: dict[str, NDArray[Any]], i: int) -> Judged:
    needed = [field.name for field in fields(Judged) if field.name not in ("values", "asked")]
    named: dict[str, Any] = {name: arrays[f"{i}/{name}"] for name in needed}
    texts: dict[str, Any] = {name: str(named.pop(name)) for name in _TEXTS}
    prefix = f"{i}/{_VALUES}"
    values = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
    return Judged(**texts, **named, values=values, asked=arrays.get(f"{i}/asked"))
