"""Calling Triton: one `ModelInfer` for a batch. Nothing else speaks to Triton on the request path.

The request is put together in protobuf's wire format (see `wire`) from parts that are kept serialized and the
arrays' bytes: `tritonclient`'s own objects copy every tensor several times, and filling the message takes
longer than making the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton

from features.encoder_name import encoder_name
from gateway.errors import ModelUnavailable, VersionGone
from gateway.fit import Tensor
from gateway.versions import ServingVersion
from gateway.wire import varint

_GONE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
_GONE_WORDS = ("unknown model", "not at ready state", "has no available versions")
"""Triton has the same codes for a queue that is full and a server that is not there: its words tell."""
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_RAW_TAG = bytes((triton.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number << 3 | 2,))
Metadata: TypeAlias = tuple[tuple[str, str], ...] | None
_DTYPES: dict[str, Any] = {"INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's answer to a batch of B rows."""

    item_keys: NDArray[np.int64]
    """int64 `[B, K]`, best first, 0 where nothing allowed is left."""
    scores: NDArray[np.float32]
    """float32 `[B, K]`."""
    reason_keys: NDArray[np.int64] | None
    """int64 `[B, K]`, 0 for none; None if not asked for."""
    user_vector: NDArray[np.float32] | None
    """float32 `[B, D]`; None if not asked for."""


def triton_channel(target: str) -> grpc.aio.Channel:
    """A channel to Triton that finds a restarted one again quickly."""
    return grpc.aio.insecure_channel(
        target,
        options=[
            # What is called is ours: a proxy that is set for the way out must not stand between.
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            # By its name a pause, but it is how long an attempt to connect may take. Calls wait for it no
            # longer than for an answer.
            ("grpc.min_reconnect_backoff_ms", 2000),
        ],
    )


class Scorer:
    """Scores batches through one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._infer: Any = channel.unary_unary(
            _METHOD, response_deserializer=triton.ModelInferResponse.FromString
        )

    async def encode(
        self, version: ServingVersion, inputs: dict[str, NDArray[Any]], *, timeout_s: float
    ) -> NDArray[np.float32]:
        """User vectors float32 `[B, D]` of the encoder of `version`, which is a model of its own in Triton.
        They need not be finite.

        Raises:
            VersionGone: Triton does not have that version of the encoder ready.
            ModelUnavailable: no answer in time, or one that is none.
        """
        answer = await self._call(
            encoder_name(version.name), version, inputs, ("user_vector",), timeout_s=timeout_s
        )
        vectors = answer.get("user_vector")
        if vectors is None or len(vectors) != len(next(iter(inputs.values()))):
            raise ModelUnavailable(
                f"the encoder of version {version.version} answered no vector for each row"
            )
        return vectors

    async def score(
        self,
        version: ServingVersion,
        inputs: dict[str, NDArray[Any]],
        *,
        reasons: bool,
        vectors: bool,
        timeout_s: float,
        metadata: Metadata = None,
    ) -> Scores:
        """The answer of `version` to `inputs`.

        Args:
            version: the version to pin the call to.
            inputs: name → `[B, width]`, all that the version lists.
            reasons: ask for `reason_keys`.
            vectors: ask for `user_vector`.
            timeout_s: passed on to Triton as the call's deadline.
            metadata: for Triton, which a trace comes with.

        Raises:
            VersionGone: Triton does not have the version ready.
            ModelUnavailable: no answer in time, or one that is none, or not finite.
        """
        outputs = ("item_keys", "scores") + ("reason_keys",) * reasons + ("user_vector",) * vectors
        answer = await self._call(
            version.name, version, inputs, outputs, timeout_s=timeout_s, metadata=metadata
        )
        try:
            scores = Scores(
                answer["item_keys"], answer["scores"], answer.get("reason_keys"), answer.get("user_vector")
            )
        except KeyError as error:
            raise ModelUnavailable(
                f"version {version.version} answered what is no answer: {error!r}"
            ) from error
        rows = len(next(iter(inputs.values())))
        answered = (scores.item_keys, scores.scores, scores.reason_keys, scores.user_vector)
        if any(values is not None and len(values) != rows for values in answered):
            raise ModelUnavailable(f"version {version.version} answered other than {rows} rows")
        # A diverged model answers NaN without any error; a fallback page is better than its random one.
        if not np.isfinite(scores.scores).all():
            raise ModelUnavailable(f"version {version.version} answered scores that are not finite")
        return scores

    async def _call(
        self,
        model: str,
        version: ServingVersion,
        inputs: dict[str, NDArray[Any]],
        outputs: tuple[str, ...],
        *,
        timeout_s: float,
        metadata: Metadata = None,
    ) -> dict[str, NDArray[Any]]:
        request = _request(model, version.version, version.inputs, inputs, outputs)
        try:
            response = await self._infer(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            gone = error.code() in _GONE_CODES and any(words in details for words in _GONE_WORDS)
            raise (VersionGone if gone else ModelUnavailable)(f"{error.code().name}: {details}") from error
        try:
            return {
                output.name: np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape))
                for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }
        except (KeyError, ValueError) as error:
            raise ModelUnavailable(
                f"version {version.version} answered what is no answer: {error!r}"
            ) from error


def _request(
    model: str,
    version: int,
    listed: Mapping[str, Tensor],
    inputs: Mapping[str, NDArray[Any]],
    outputs: tuple[str, ...],
) -> bytes:
    """A serialized `ModelInferRequest`; `inputs` are C-contiguous."""
    parts: list[bytes | memoryview] = [_asked(model, version, outputs)]
    parts += [_described(name, listed[name].datatype, values.shape) for name, values in inputs.items()]
    for values in inputs.values():
        parts += (_RAW_TAG, varint(values.nbytes), values.data)
    return b"".join(parts)  # the only copy of the arrays


@lru_cache(maxsize=256)
def _asked(model: str, version: int, outputs: tuple[str, ...]) -> bytes:
    asked: bytes = triton.ModelInferRequest(
        model_name=model,
        model_version=str(version),
        outputs=[triton.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
    ).SerializeToString()
    return asked


@lru_cache(maxsize=4096)
def _described(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    tensor = triton.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    described: bytes = triton.ModelInferRequest(inputs=[tensor]).SerializeToString()
    return described
