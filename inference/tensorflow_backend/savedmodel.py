"""One signature of a SavedModel, held for repeated runs; as a program, a preflight in the serving
environment.

    python savedmodel.py FOLDER SIGNATURE INPUTS.npz OUTPUTS.npz

writes the answers to the requests in INPUTS.npz and prints the signature as JSON. It imports nothing of
Riptide, because it runs in the interpreter that Triton's Python backend uses.

The model runs in a session, as in Triton's native TensorFlow backend: a session cuts the graph down to what a
request asked for, and a prepared callable costs a third of an eager call of the same function.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

tf.get_logger().setLevel("ERROR")

MAX_CALLABLES = 16
"""Sets of requested outputs that are kept prepared; the four outputs of the contract have fifteen."""


class WrongInput(ValueError):
    """An array that the signature cannot take."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the signature: `shape` has -1 for a free axis, `dtype` is numpy's name for the type."""

    name: str
    graph_name: str
    dtype: str
    shape: tuple[int, ...]


def open_session(
    *, intra_op_threads: int = 0, inter_op_threads: int = 0, device_id: int | None = None
) -> tf.compat.v1.Session:
    """A session with an empty graph. TensorFlow starts its threads here, with this thread's priority.

    Thread counts are TensorFlow's: 0 leaves the choice to it. `device_id` is the GPU to run on, None for the
    CPU.
    """
    gpu = tf.compat.v1.GPUOptions(
        allow_growth=True, visible_device_list="" if device_id is None else str(device_id)
    )
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=intra_op_threads,
        inter_op_parallelism_threads=inter_op_threads,
        use_per_session_threads=True,
        allow_soft_placement=True,
        gpu_options=gpu,
        device_count={} if device_id is not None else {"GPU": 0},
    )
    # Graphs are optimised once, not twice: a quarter less time until a version's first answer to each set of
    # outputs, and as quick in all later ones.
    config.graph_options.rewrite_options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    return tf.compat.v1.Session(graph=tf.Graph(), config=config)


class SavedModel:
    """A signature of the SavedModel in `folder`, loaded into `session`, which is its own from then on.

    Safe to call from one thread at a time.

    `on_calling_thread`: operations run on the thread that calls `run`, one after the other, which spares a
    small model the hand-over to another thread.

    Raises:
        ValueError: the SavedModel has no such signature.
    """

    def __init__(
        self, folder: str, signature: str, session: tf.compat.v1.Session, *, on_calling_thread: bool = False
    ) -> None:
        self._session = session
        graph = session.graph
        loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], folder)
        if signature not in loaded.signature_def:
            names = ", ".join(sorted(name for name in loaded.signature_def if not name.startswith("__")))
            raise ValueError(f"the SavedModel has no signature {signature!r}; it has {names}")
        found = loaded.signature_def[signature]
        self.inputs: Mapping[str, TensorInfo] = _infos(found.inputs)
        self.outputs: Mapping[str, TensorInfo] = _infos(found.outputs)
        self._expected = {
            name: (np.dtype(info.dtype), len(info.shape), info.shape[1:])
            for name, info in self.inputs.items()
            if info.shape[:1] == (-1,)
        }
        # The outputs of a signature are those of one function call. A call that is fetched itself is kept
        # whole, with all its outputs; behind an identity it is cut down to those that were asked for.
        with graph.as_default():
            self._fetches = {
                name: tf.identity(graph.get_tensor_by_name(info.graph_name)).name
                for name, info in self.outputs.items()
            }
        self._on_calling_thread = on_calling_thread
        self._callables: dict[tuple[str, ...], Callable[..., list[NDArray[Any]]]] = {}

    def check(self, name: str, array: NDArray[Any]) -> None:
        """Raise `WrongInput` unless `array` fits the input `name`."""
        # Almost every array ends here: what follows takes ten times as long, for each input of each request.
        if (array.dtype, array.ndim, array.shape[1:]) == self._expected.get(name):
            return
        info = self.inputs[name]
        if array.dtype != info.dtype:
            raise WrongInput(f"{name}: must be {info.dtype}, not {array.dtype}")
        fits = len(array.shape) == len(info.shape) and all(
            want in (-1, have) for want, have in zip(info.shape, array.shape, strict=True)
        )
        if not fits:
            raise WrongInput(f"{name}: must have shape {list(info.shape)}, not {list(array.shape)}")

    def run(self, arrays: Sequence[NDArray[Any]], outputs: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Answer one batch: `arrays` in the order of `inputs`; only what `outputs` name is computed.

        Raises:
            KeyError: an output that the signature does not have.
            tf.errors.OpError: the graph refused the values.
        """
        names = tuple(sorted(set(outputs)))
        prepared = self._callables.get(names) or self._prepare(names)
        return dict(zip(names, prepared(*arrays), strict=True))

    def _prepare(self, names: tuple[str, ...]) -> Callable[..., list[NDArray[Any]]]:
        options = config_pb2.CallableOptions()
        options.feed.extend(info.graph_name for info in self.inputs.values())
        options.fetch.extend(self._fetches[name] for name in names)
        if self._on_calling_thread:
            options.run_options.inter_op_thread_pool = -1
        if len(self._callables) >= MAX_CALLABLES:
            self._callables.pop(next(iter(self._callables)))
        # The public make_callable goes through Session.run's feed handling and takes three times as long per
        # call.
        prepared: Callable[..., list[NDArray[Any]]] = self._session._make_callable_from_options(options)
        self._callables[names] = prepared
        return prepared

    def close(self) -> None:
        """Free the session."""
        self._callables.clear()
        self._session.close()


def _infos(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """The signature's tensors by name, sorted so that their order is the same in every process."""
    return {
        name: TensorInfo(
            name,
            tensors[name].name,
            np.dtype(tf.as_dtype(tensors[name].dtype).as_numpy_dtype).name,
            tuple(dim.size for dim in tensors[name].tensor_shape.dim),
        )
        for name in sorted(tensors)
    }


def replay(folder: str, signature: str, inputs_file: str, outputs_file: str) -> dict[str, Any]:
    """Answer the requests in `inputs_file`, write the answers to `outputs_file`, return the signature.

    Tensors of the signature that `inputs_file` lacks, or holds in another form, are named in `problem`;
    nothing is run then.
    """
    model = SavedModel(folder, signature, open_session())
    report: dict[str, Any] = {
        "inputs": {info.name: [info.dtype, list(info.shape)] for info in model.inputs.values()},
        "outputs": {info.name: [info.dtype, list(info.shape)] for info in model.outputs.values()},
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "problem": None,
    }
    with np.load(inputs_file) as file:
        arrays = {name: file[name] for name in file.files}
    try:
        for name in model.inputs:
            if name not in arrays:
                raise WrongInput(f"{name}: the golden requests have no such input")
            model.check(name, arrays[name])
        answers = model.run([arrays[name] for name in model.inputs], model.outputs)
    except (WrongInput, tf.errors.OpError) as error:
        report["problem"] = str(error).splitlines()[0]
        return report
    np.savez(outputs_file, **answers)  # type: ignore[arg-type]  # numpy types **kwds as its own flag
    return report


if __name__ == "__main__":
    print(json.dumps(replay(*sys.argv[1:5])))
