"""Calling Triton: one `ModelInfer` for a batch. Nothing else speaks to Triton on the request path.

Raw stubs and `raw_input_contents`: `tritonclient`'s own objects copy every tensor several times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from gateway.errors import ModelUnavailable, VersionGone
from gateway.versions import ServingVersion

_GONE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
_GONE_WORDS = ("unknown model", "not at ready state", "has no available versions")
"""Triton has the same codes for a queue that is full and a server that is not there: its words tell."""
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
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ],
    )


class Scorer:
    """Scores batches through one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = GRPCInferenceServiceStub(channel)

    async def score(
        self,
        version: ServingVersion,
        inputs: dict[str, NDArray[Any]],
        *,
        reasons: bool,
        vectors: bool,
        timeout_s: float,
    ) -> Scores:
        """The answer of `version` to `inputs`.

        Args:
            version: the version to pin the call to.
            inputs: name → `[B, width]`, all that the version lists.
            reasons: ask for `reason_keys`.
            vectors: ask for `user_vector`.
            timeout_s: passed on to Triton as the call's deadline.

        Raises:
            VersionGone: Triton does not have the version ready.
            ModelUnavailable: no answer in time, or one that is none, or not finite.
        """
        outputs = ["item_keys", "scores"] + ["reason_keys"] * reasons + ["user_vector"] * vectors
        request = triton.ModelInferRequest(
            model_name=version.name,
            model_version=str(version.version),
            inputs=[
                triton.ModelInferRequest.InferInputTensor(
                    name=name, datatype=version.inputs[name].datatype, shape=values.shape
                )
                for name, values in inputs.items()
            ],
            outputs=[triton.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
            raw_input_contents=[values.tobytes() for values in inputs.values()],
        )
        try:
            response = await self._stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            details = error.details() or ""
            gone = error.code() in _GONE_CODES and any(words in details for words in _GONE_WORDS)
            raise (VersionGone if gone else ModelUnavailable)(f"{error.code().name}: {details}") from error
        try:
            answer = {
                output.name: np.frombuffer(raw, _DTYPES[output.datatype]).reshape(tuple(output.shape))
                for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
            }
            scores = Scores(
                answer["item_keys"], answer["scores"], answer.get("reason_keys"), answer.get("user_vector")
            )
        except (KeyError, ValueError) as error:
            raise ModelUnavailable(
                f"version {version.version} answered what is no answer: {error!r}"
            ) from error
        # A diverged model answers NaN without any error; a fallback page is better than its random one.
        if not np.isfinite(scores.scores).all():
            raise ModelUnavailable(f"version {version.version} answered scores that are not finite")
        return scores
