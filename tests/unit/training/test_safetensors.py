"""Reading a file in the safetensors format, written here by its description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training.safetensors import read_safetensors


def test_tensors_have_their_names_types_shapes_and_values(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype="<f4").reshape(2, 3) / 7
    numbers = np.array([5, -1], "<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "numbers": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
        "matrix": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + matrix.tobytes() + numbers.tobytes())
    tensors = read_safetensors(path)
    assert list(tensors) == ["numbers", "matrix"]
    assert tensors["matrix"].dtype == np.float32
    np.testing.assert_array_equal(tensors["matrix"], matrix)
    np.testing.assert_array_equal(tensors["numbers"], numbers)
