"""Proof that a version in a running Triton answers: known requests get their known answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from inference.errors import ProofFailed
from inference.golden import Arrays, Golden, difference, read_golden
from inference.signature import ENCODE_OUTPUT, OUTPUT_SETS

CALL_TIMEOUT_S = 30.0

TRITON_NAMES = {"int64": "INT64", "int32": "INT32", "float32": "FP32", "bool": "BOOL"}
NUMPY_TYPES = {triton: np.dtype(name) for name, triton in TRITON_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven: `requests` golden requests of `version`."""

    model: str
    version: int
    requests: int

    def __str__(self) -> str:
        return f"{self.model} version {self.version}, {self.requests} golden requests answered as expected"


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel to Triton's gRPC endpoint, without a limit on message sizes and never through a proxy."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ],
    )


async def prove_version(stub: Any, model: str, repository: Path, version: int) -> Proof:
    """Send one version its golden requests.

    Each set of outputs is asked for once with all rows in one request and once with a single row.

    Raises:
        ProofFailed: an answer differs, or a request failed; names the version and what is wrong.
        UnfitModel: the version's golden requests cannot be read.
    """
    stored = read_golden(repository / model / str(version) / "golden.npz")
    return await _prove(stub, model, version, stored, OUTPUT_SETS)


async def prove_encoder(stub: Any, encoder: str, version: int, golden: Golden) -> Proof:
    """Send one version of an encoder the recommender's golden requests, those that had to be encoded; its
    vectors are to be theirs.

    Raises:
        ProofFailed: see `prove_version`.
    """
    return await _prove(stub, encoder, version, _encoded(golden), ((ENCODE_OUTPUT,),))


async def _prove(
    stub: Any, model: str, version: int, stored: Golden, output_sets: Sequence[Sequence[str]]
) -> Proof:
    try:
        metadata = await stub.ModelMetadata(
            service_pb2.ModelMetadataRequest(name=model, version=str(version)), timeout=CALL_TIMEOUT_S
        )
    except grpc.aio.AioRpcError as exc:
        raise ProofFailed(
            f"Triton does not describe {model} version {version}: {exc.code().name} {exc.details()}"
        ) from exc
    wanted = stored.inputs.keys() & {tensor.name for tensor in metadata.inputs}
    golden = Golden({name: stored.inputs[name] for name in wanted}, stored.outputs)
    for outputs in output_sets:
        for batch in (golden, _first(golden)):
            try:
                answers = await infer(stub, model, version, batch.inputs, outputs)
            except grpc.aio.AioRpcError as exc:
                raise ProofFailed(
                    f"{model} version {version} fails a golden request: {exc.code().name} {exc.details()}"
                ) from exc
            wrong = difference(batch, answers)
            if wrong:
                raise ProofFailed(f"{model} version {version} answers golden requests wrongly: {wrong}")
    return Proof(model, version, golden.rows)


async def infer(
    stub: Any,
    model: str,
    version: int,
    inputs: Arrays,
    outputs: Sequence[str],
    *,
    timeout_s: float = CALL_TIMEOUT_S,
) -> Arrays:
    """One `ModelInfer`; arrays in, the named arrays out.

    Raises:
        grpc.aio.AioRpcError: as Triton answered.
    """
    answer = await stub.ModelInfer(infer_request(model, version, inputs, outputs), timeout=timeout_s)
    return {
        output.name: np.frombuffer(raw, NUMPY_TYPES[output.datatype]).reshape(tuple(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def infer_request(
    model: str, version: int, inputs: Arrays, outputs: Sequence[str]
) -> service_pb2.ModelInferRequest:
    """The request message, tensors as raw bytes."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version))
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=TRITON_NAMES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(np.ascontiguousarray(array).tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def _first(golden: Golden) -> Golden:
    return _rows(golden, slice(1))


def _encoded(golden: Golden) -> Golden:
    """Without the rows that came with a vector: theirs may be from anywhere."""
    fresh = golden.inputs.get("user_vector_fresh")
    return golden if fresh is None or fresh.all() else _rows(golden, fresh[:, 0] == 0)


def _rows(golden: Golden, rows: slice | NDArray[np.bool_]) -> Golden:
    return Golden(
        {name: array[rows] for name, array in golden.inputs.items()},
        {name: array[rows] for name, array in golden.outputs.items()},
    )
