"""What a version is warmed up with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inference.tensorflow_backend.savedmodel import TensorInfo
from inference.tensorflow_backend.warmup import BATCHES, batches

TENSORS = {
    "fresh": TensorInfo("fresh", "fresh:0", "int32", (-1, 1)),
    "keys": TensorInfo("keys", "keys:0", "int64", (-1, -1)),
}


def test_every_batch_size_is_filled_with_the_golden_requests_in_turn(tmp_path: Path) -> None:
    golden = {"in:fresh": np.array([[0], [1], [0]], np.int32), "in:keys": np.arange(15).reshape(3, 5)}
    np.savez(tmp_path / "golden.npz", **golden, **{"out:scores": np.ones((3, 2))})  # type: ignore[arg-type]  # numpy types **kwds as its own flag
    found = list(batches(tmp_path / "golden.npz", TENSORS))
    assert [len(fresh) for fresh, _ in found] == [1, 8, 32, 64] == list(BATCHES)
    fresh, keys = found[1]
    assert fresh[:, 0].tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    assert keys[4].tolist() == [5, 6, 7, 8, 9]


def test_without_golden_requests_the_rows_are_zeros(tmp_path: Path) -> None:
    fresh, keys = list(batches(tmp_path / "golden.npz", TENSORS))[1]
    assert (fresh.dtype, keys.dtype) == (np.int32, np.int64)
    assert (fresh.tolist(), keys.tolist()) == ([[0]] * 8, [[0]] * 8)


def test_a_file_that_holds_no_requests_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "golden.npz").write_bytes(b"PK\x03\x04 cut off")
    assert len(list(batches(tmp_path / "golden.npz", TENSORS))) == len(BATCHES)
