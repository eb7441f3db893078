"""Reading a safetensors file: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {"F32": "<f4", "I64": "<i8"}
"""Those that the models here have."""


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors by name, read-only and in the file's order.

    The file is 8 bytes with the length of a header (little-endian), the header (JSON: type, shape, and first
    and last byte behind the header), and the bytes of the tensors.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        data = memoryview(content)[start + first : start + last]
        tensors[name] = np.frombuffer(data, _TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
