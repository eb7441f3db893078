"""The floor under the gateway: `ModelInfer` straight at Triton, from a raw stub, bytes made before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton

from benchmarks.bench import Server
from benchmarks.deployment import Deployment
from benchmarks.errors import BenchmarkError
from benchmarks.target import MODEL_INFER, Target

RAW = "ModelInfer at Triton, raw stub"
_TYPES = {"int64": "INT64", "int32": "INT32", "float32": "FP32", "bool": "BOOL"}
_OUTPUTS = ("item_keys", "scores")
_TIMEOUT_S = 20.0
_BEST = 10


def raw_model_infer(deployment: Deployment) -> Server:
    """Triton, called with the version's golden requests with a history, one row each, with a fresh vector.

    Raises:
        BenchmarkError, OSError: the version has no golden requests, or none with a history.
    """
    settings = deployment.settings
    arrays, _ = _golden(deployment)
    rows = len(arrays["user_vector"])
    arrays["user_vector_fresh"] = np.ones((rows, 1), np.int32)
    bodies = [
        _request(settings.model_name, {name: values[row : row + 1] for name, values in arrays.items()})
        for row in range(rows)
    ]
    target = Target(settings.triton_grpc_port, MODEL_INFER, bodies, kind="request")
    return Server(RAW, target, {"Triton": deployment.triton})


def batches(deployment: Deployment, most: int) -> list[bytes]:
    """Serialized `ModelInfer` requests of 1 to `most` rows: users with a fresh vector who want nothing
    special.

    Raises:
        BenchmarkError, OSError: the version has no golden requests, or none with a history.
    """
    arrays, _ = _golden(deployment)
    arrays["user_vector_fresh"] = np.ones((len(arrays["user_vector"]), 1), np.int32)
    for name, usual in (("allowed_categories", True), ("diversity", 0.0)):
        if name in arrays:
            arrays[name] = np.full_like(arrays[name], usual)
    return [
        _request(
            deployment.settings.model_name,
            {name: np.resize(values, (rows, *values.shape[1:])) for name, values in arrays.items()},
        )
        for rows in range(1, most + 1)
    ]


def _request(model: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    request = triton.ModelInferRequest(
        model_name=model,
        model_version="1",
        inputs=[
            triton.ModelInferRequest.InferInputTensor(
                name=name, datatype=_TYPES[values.dtype.name], shape=values.shape
            )
            for name, values in arrays.items()
        ],
        outputs=[triton.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in _OUTPUTS],
        raw_input_contents=[values.tobytes() for values in arrays.values()],
    )
    return bytes(request.SerializeToString())


def check_raw(deployment: Deployment, server: Server) -> None:
    """Asks once: what comes must be the golden page of that request.

    Raises:
        BenchmarkError: it is not, or nothing comes.
    """
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{server.target.port}", options=options) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(server.target.path)
        try:
            said = triton.ModelInferResponse.FromString(method(server.target.bodies[0], timeout=_TIMEOUT_S))
        except grpc.RpcError as error:
            raise BenchmarkError(f"{RAW}: {error}") from error
    _, pages = _golden(deployment)
    if not answers_page(said, pages[0]):
        raise BenchmarkError(f"{RAW}: its answer is not the golden one")


def answers_page(said: triton.ModelInferResponse, page: NDArray[np.int64]) -> bool:
    """Whether the best items of an answer are those of a page, ties aside.

    Args:
        page: item keys, best first, int64 `[K]`.
    """
    raw = dict(zip((output.name for output in said.outputs), said.raw_output_contents, strict=True))
    keys = np.frombuffer(raw.get("item_keys", b""), np.int64)
    return set(keys[:_BEST].tolist()) == set(page[:_BEST].tolist())


def _golden(deployment: Deployment) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Inputs by name, with the vector of each user, and item keys `[n, K]`, of requests with a history."""
    settings = deployment.settings
    folder = settings.model_repository / settings.model_name / "1"
    try:
        inputs = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["inputs"]
        with np.load(folder / "golden.npz") as golden:
            arrays = {name: golden[f"in:{name}"] for name in inputs}
            arrays["user_vector"] = golden["out:user_vector"]
            pages = golden["out:item_keys"]
    except KeyError as error:
        raise BenchmarkError(f"{folder}: no golden requests ({error})") from error
    long = (arrays["history_keys"] != 0).any(axis=1)
    if not long.any():
        raise BenchmarkError(f"{folder}: no golden request has a history")
    return {name: values[long] for name, values in arrays.items()}, pages[long]
