"""The Python-based Triton backend `tensorflow`: serves `<version>/model.savedmodel` as the native backend
would.

Parameters of the model's configuration, named as the native backend names them: `TF_SIGNATURE_DEF`
(default `serving_default`), `TF_NUM_INTRA_THREADS`, `TF_NUM_INTER_THREADS` (default 0: TensorFlow chooses).
Of its own: `WARM_OUTPUT_SETS`, sets of outputs ("a,b;a,b,c") that are run in several batch sizes before it is
ready; `CPU_NICE` (default 0), by how much its process' priority is lower than Triton's own: one
that users do not wait for, and that is killed first for memory.

A version starts beside others that serve. What takes long (TensorFlow's import, the load, the first runs)
therefore has the lowest priority, and what wants too much memory fails alone.

All requests that Triton hands over at once are one run of the model. On a CPU, tensors go through numpy, not
DLPack: TensorFlow aborts the process on buffers that are not 64-byte aligned, and Triton's are not.
"""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from background import in_background, lower_priority  # type: ignore[import-not-found]  # beside it when it runs
from memory_guard import memory_guard  # type: ignore[import-not-found]  # likewise
from numpy.typing import NDArray
from warmup import batches  # type: ignore[import-not-found]  # likewise


class TritonPythonModel:
    """One instance of one version; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version. An exception here is the load's error message."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        folder = Path(args["model_repository"], args["model_version"])
        on_gpu = args["model_instance_kind"] == "GPU"
        # Before anything else: threads inherit it from those that start them, TensorFlow's too.
        nice = int(parameters.get("CPU_NICE", 0))
        if nice:
            lower_priority(nice)
        inter_op_threads = int(parameters.get("TF_NUM_INTER_THREADS", 0))
        # A GPU's driver reserves far more address space than there is memory, which the limit would refuse.
        with memory_guard(limit=not on_gpu, expendable=nice > 0):
            savedmodel = in_background(lambda: importlib.import_module("savedmodel"))
            # Here, not in the background: the threads that it starts are those that serve.
            session = savedmodel.open_session(
                intra_op_threads=int(parameters.get("TF_NUM_INTRA_THREADS", 0)),
                inter_op_threads=inter_op_threads,
                device_id=int(args["model_instance_device_id"]) if on_gpu else None,
            )

            def load() -> Any:
                model = savedmodel.SavedModel(
                    str(folder / "model.savedmodel"),
                    parameters.get("TF_SIGNATURE_DEF", "serving_default"),
                    session,
                    on_calling_thread=inter_op_threads == 1,
                )
                for names in parameters.get("WARM_OUTPUT_SETS", "").split(";"):
                    for batch in batches(folder / "golden.npz", model.inputs) if names else ():
                        model.run(batch, names.split(","))
                # TensorFlow's import leaves hundreds of thousands of objects. To look through them all for
                # garbage takes some 80 ms, in which every call waits: they are not looked at again.
                gc.collect()
                gc.freeze()
                return model

            self._model = in_background(load)
        self._names = tuple(self._model.inputs)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in their order."""
        responses: list[Any] = [None] * len(requests)
        places: list[int] = []
        rows: list[list[NDArray[Any]]] = []
        for place, request in enumerate(requests):
            try:
                rows.append(self._read(request))
                places.append(place)
            except (
                Exception
            ) as error:  # whatever is wrong with one request must not fail its batch neighbours
                responses[place] = _failed(error)
        wanted = [requests[place].requested_output_names() for place in places]
        if not places:
            return responses
        try:
            answers = self._answer(rows, wanted)
        except Exception as error:
            if len(places) == 1:
                answers = [_failed(error)]
            else:
                answers = [
                    self._answer_alone(arrays, names) for arrays, names in zip(rows, wanted, strict=True)
                ]
        for place, answer in zip(places, answers, strict=True):
            responses[place] = answer
        return responses

    def finalize(self) -> None:
        """Free the model."""
        self._model.close()

    def _read(self, request: Any) -> list[NDArray[Any]]:
        """The request's arrays, in the order of the model's inputs."""
        tensors = {tensor.name(): tensor for tensor in request.inputs()}
        arrays = []
        size = None
        for name in self._names:
            if name not in tensors:
                raise ValueError(f"{name}: missing")
            array = tensors[name].as_numpy()
            self._model.check(name, array)
            if size is None:
                size = len(array)
            elif len(array) != size:
                raise ValueError(f"{name}: has {len(array)} rows where another input has {size}")
            arrays.append(array)
        return arrays

    def _answer(self, rows: Sequence[list[NDArray[Any]]], wanted: Sequence[Sequence[str]]) -> list[Any]:
        """Run all `rows` as one batch and cut the answers apart again."""
        batch = rows[0] if len(rows) == 1 else [np.concatenate(column) for column in zip(*rows, strict=True)]
        answers = self._model.run(batch, {name for names in wanted for name in names})
        responses = []
        start = 0
        for arrays, names in zip(rows, wanted, strict=True):
            end = start + len(arrays[0])
            tensors = [pb_utils.Tensor(name, answers[name][start:end]) for name in names]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start = end
        return responses

    def _answer_alone(self, arrays: list[NDArray[Any]], names: Sequence[str]) -> Any:
        """One request of a batch that failed as a whole: its answer, or its own error."""
        try:
            return self._answer([arrays], [names])[0]
        except Exception as error:
            return _failed(error)


def _failed(error: Exception) -> Any:
    lines = str(error).splitlines() or [type(error).__name__]
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(lines[0]))
