"""A stand-in for Triton's gRPC endpoint: versions that load or do not, and who may ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from inference.access import ADMIN_KEY
from inference.model_config import versions_of
from inference.proof import NUMPY_TYPES

TOKEN = "the-token"


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # ships no types
    """Loads the versions that a call lists, all or none; `broken` says which cannot be and why."""

    def __init__(self, broken: Mapping[int, str] | None = None) -> None:
        self.broken = dict(broken or {})
        self.ready: list[int] = []
        self.loads: list[list[int]] = []
        """What each load listed."""
        self.dead: set[int] = set()
        """Versions whose process is gone."""
        self.asked: list[tuple[int, dict[str, NDArray[Any]]]] = []
        """Version and inputs of each inference."""

    async def RepositoryModelLoad(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """As Triton: versions that are there stay there if another fails."""
        await self._check(context)
        config = json_format.Parse(request.parameters["config"].string_param, model_config_pb2.ModelConfig())
        self.loads.append(versions_of(config))
        for version in self.loads[-1]:
            if version in self.broken:
                reason = f"version {version} is at UNAVAILABLE state: Internal: {self.broken[version]};\n"
                details = f"load failed for model '{request.model_name}': {reason}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
        self.ready = self.loads[-1]
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryIndex(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The versions of the model, and a model of which nothing is known."""
        await self._check(context)
        answer = service_pb2.RepositoryIndexResponse()
        answer.models.add(name=".recommender")
        answer.models.add(name="other", version="9", state="READY")
        for version in self.ready:
            answer.models.add(name="recommender", version=str(version), state="READY")
        for version, reason in self.broken.items():
            answer.models.add(
                name="recommender", version=str(version), state="UNAVAILABLE", reason=f"Internal: {reason}"
            )
        return answer

    async def ModelReady(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Anybody may ask."""
        return service_pb2.ModelReadyResponse(ready=int(request.version) in self.ready)

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """An answer without tensors, from a version that lives."""
        version = int(request.model_version)
        self.asked.append((version, inputs_of(request)))
        if version in self.dead:
            await context.abort(grpc.StatusCode.INTERNAL, "Stub process 'recommender_0_0' is not healthy.")
        if version not in self.ready:
            details = f"Request for unknown model: 'recommender' version {version} is not at ready state"
            await context.abort(grpc.StatusCode.UNAVAILABLE, details)
        return service_pb2.ModelInferResponse()

    async def _check(self, context: grpc.aio.ServicerContext) -> None:
        if (f"triton-grpc-protocol-{ADMIN_KEY}", TOKEN) not in (context.invocation_metadata() or ()):
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"This protocol is restricted, expecting header 'triton-grpc-protocol-{ADMIN_KEY}'",
            )


def inputs_of(request: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a request."""
    return {
        tensor.name: np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


@asynccontextmanager
async def serving(triton: FakeTriton) -> AsyncIterator[str]:
    """Its address, while it answers there."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
