"""What a version is warmed up with: the first run of a graph, and of a batch size, takes far longer."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = (1, 8, 32, 64)
"""Sizes that are run; those between are no slower then."""


def batches(golden: Path, tensors: Mapping[str, Any]) -> Iterator[list[NDArray[Any]]]:
    """A batch of each size, arrays in the order of `tensors`, which has `dtype` and `shape` of each.

    The rows are the version's own golden requests, so that cached and other rows mix; zeros where there are
    none.
    """
    rows = _requests(golden)
    for size in BATCHES:
        yield [
            _tiled(rows[name], size)
            if name in rows
            else np.zeros([size, *(max(1, width) for width in info.shape[1:])], info.dtype)
            for name, info in tensors.items()
        ]


def _requests(golden: Path) -> dict[str, NDArray[Any]]:
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(golden) as file:
        return {name[3:]: file[name] for name in file.files if name.startswith("in:")}
    return {}


def _tiled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    repeats = -(-size // len(rows))
    return np.tile(rows, (repeats, 1))[:size]
