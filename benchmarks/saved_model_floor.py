"""The floor under Triton: the SavedModel called in a process of its own, in Triton's environment.

    .venv-triton/bin/python -m benchmarks.saved_model_floor FOLDER [--intra 1] [--inter 1] [--seconds 0.5]

FOLDER is a published version. Writes one JSON object, batch size → milliseconds of a call, median, for users
with a fresh vector, and the same under `encoded` for users without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.tensorflow_backend.savedmodel import SavedModel, open_session

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_OUTPUTS = ("item_keys", "scores")
_FEWEST = 5


def measure(model: SavedModel, arrays: list[NDArray[Any]], seconds: float) -> float:
    """Milliseconds of a call, median."""
    model.run(arrays, _OUTPUTS)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < _FEWEST or time.perf_counter() < end:
        began = time.perf_counter()
        model.run(arrays, _OUTPUTS)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saved_model_floor")
    parser.add_argument("version", type=Path)
    parser.add_argument("--intra", type=int, default=1)
    parser.add_argument("--inter", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each batch size")
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--encoded", action="store_true", help="users without a vector, too")
    arguments = parser.parse_args()
    session = open_session(intra_op_threads=arguments.intra, inter_op_threads=arguments.inter)
    model = SavedModel(
        str(arguments.version / "model.savedmodel"),
        "recommend",
        session,
        on_calling_thread=arguments.inter == 1,
    )
    with np.load(arguments.version / "golden.npz") as golden:
        rows = {name: golden[f"in:{name}"] for name in model.inputs}
        vectors = golden["out:user_vector"]
    found = {}
    for fresh in (1, 0) if arguments.encoded else (1,):
        rows["user_vector"] = vectors
        rows["user_vector_fresh"] = np.full((len(vectors), 1), fresh, np.int32)
        found["fresh" if fresh else "encoded"] = {
            str(size): measure(model, [_tiled(rows[name], size) for name in model.inputs], arguments.seconds)
            for size in arguments.batches
        }
    print(json.dumps(found))


def _tiled(rows: NDArray[Any], size: int) -> NDArray[Any]:
    return np.tile(rows, (-(-size // len(rows)), 1))[:size]


if __name__ == "__main__":
    main()
