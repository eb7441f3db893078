"""The floor under the gateway: `ModelInfer` straight at Triton, from a raw stub, bytes made before."""

from __future__ import annotations

import json

import numpy as np
from tritonclient.grpc import service_pb2 as triton

from benchmarks.bench import Server
from benchmarks.deployment import Deployment
from benchmarks.target import MODEL_INFER, Target

RAW = "ModelInfer at Triton, raw stub"
_TYPES = {"int64": "INT64", "int32": "INT32", "float32": "FP32", "bool": "BOOL"}
_OUTPUTS = ("item_keys", "scores")


def raw_model_infer(deployment: Deployment) -> Server:
    """Triton, called with the version's golden requests, one row each, all with a fresh vector.

    Raises:
        OSError, KeyError: the version has no golden requests.
    """
    settings = deployment.settings
    folder = settings.model_repository / settings.model_name / "1"
    inputs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["inputs"]
    with np.load(folder / "golden.npz") as golden:
        arrays = {name: golden[f"in:{name}"] for name in inputs}
        arrays["user_vector"] = golden["out:user_vector"]
    rows = len(arrays["user_vector"])
    arrays["user_vector_fresh"] = np.ones((rows, 1), np.int32)
    bodies = []
    for row in range(rows):
        one = {name: values[row : row + 1] for name, values in arrays.items()}
        request = triton.ModelInferRequest(
            model_name=settings.model_name,
            model_version="1",
            inputs=[
                triton.ModelInferRequest.InferInputTensor(
                    name=name, datatype=_TYPES[values.dtype.name], shape=values.shape
                )
                for name, values in one.items()
            ],
            outputs=[triton.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in _OUTPUTS],
            raw_input_contents=[values.tobytes() for values in one.values()],
        )
        bodies.append(request.SerializeToString())
    target = Target(settings.triton_grpc_port, MODEL_INFER, bodies, kind="request")
    return Server(RAW, target, {"Triton": deployment.triton})
