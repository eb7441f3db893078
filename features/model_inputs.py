"""Turning a user's history into model inputs: the one function that training and serving both use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def left_padded(arrays: Sequence[NDArray[Any]], width: int, dtype: DTypeLike) -> NDArray[Any]:
    """The newest `width` values of each array, aligned to the right, zeros before them.

    Args:
        arrays: N one-dimensional arrays, oldest value first, of any length (none, too).
        width: columns of the answer.
        dtype: type of the answer.

    Returns:
        `[N, width]`; row i ends with the last value of `arrays[i]`.
    """
    padded = np.zeros((len(arrays), width), dtype)
    for row, values in zip(padded, arrays, strict=True):
        count = min(len(values), width)
        if count:
            row[width - count :] = values[len(values) - count :]
    return padded
