"""The Python-based Triton backend `tensorflow`: serves `<version>/model.savedmodel` as the native backend
would.

Parameters of the model's configuration, named as the native backend names them: `TF_SIGNATURE_DEF`
(default `serving_default`), `TF_NUM_INTRA_THREADS`, `TF_NUM_INTER_THREADS` (default 0: TensorFlow chooses).
Of its own: `WARM_OUTPUT_SETS`, sets of outputs ("a,b;a,b,c") whose graphs are made before it is ready.

All requests that Triton hands over at once are one run of the model. On a CPU, tensors go through numpy, not
DLPack: TensorFlow aborts the process on buffers that are not 64-byte aligned, and Triton's are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from savedmodel import SavedModel, WrongInput  # type: ignore[import-not-found]  # beside it when it runs


class TritonPythonModel:
    """One instance of one version; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version. An exception here is the load's error message."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        folder = Path(args["model_repository"], args["model_version"], "model.savedmodel")
        self._model = SavedModel(
            str(folder),
            parameters.get("TF_SIGNATURE_DEF", "serving_default"),
            intra_op_threads=int(parameters.get("TF_NUM_INTRA_THREADS", 0)),
            inter_op_threads=int(parameters.get("TF_NUM_INTER_THREADS", 0)),
            device_id=int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None,
        )
        self._names = tuple(self._model.inputs)
        for names in parameters.get("WARM_OUTPUT_SETS", "").split(";"):
            if names:
                self._model.warm(names.split(","))

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
                raise WrongInput(f"{name}: missing")
            array = tensors[name].as_numpy()
            self._model.check(name, array)
            if size is None:
                size = len(array)
            elif len(array) != size:
                raise WrongInput(f"{name}: has {len(array)} rows where another input has {size}")
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
