"""A stand-in for a Triton that serves a recommender and its encoder, and the repository that both are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2

from inference.model_config import versions_of
from inference.signature import ENCODE_INPUTS
from tests.unit.inference.fake_triton import FakeTriton, inputs_of

ENCODER = "user_encoder"


class FakeEncoders(FakeTriton):
    """`ready` is the recommender's; what is of the encoder says so. Its vectors are its history's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders: set[int] = set()
        """Versions of the encoder that are ready."""
        self.encoder_loads: list[list[int]] = []
        """What each load of it listed; an unload lists none."""
        self.encoder_broken: dict[int, str] = {}
        self.encoder_dead: set[int] = set()
        self.encoder_wrong: set[int] = set()
        """Versions that answer something else."""
        self.encoder_asked: list[int] = []
        self.loading: set[int] = set()
        """Versions of the recommender."""
        self.away = False

    async def RepositoryModelLoad(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if request.model_name != ENCODER:
            return await super().RepositoryModelLoad(request, context)
        await self._check(context)
        config = json_format.Parse(request.parameters["config"].string_param, model_config_pb2.ModelConfig())
        self.encoder_loads.append(versions_of(config))
        for version in set(self.encoder_loads[-1]) - self.encoders:
            if version in self.encoder_broken:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.encoder_broken[version])
        self.encoders = set(self.encoder_loads[-1])
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        await self._check(context)
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "failed to connect")
        assert request.model_name == ENCODER
        self.encoder_loads.append([])
        self.encoders = set()
        return service_pb2.RepositoryModelUnloadResponse()

    async def RepositoryIndex(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "failed to connect")
        answer = await super().RepositoryIndex(request, context)
        for version in self.loading:
            answer.models.add(name="recommender", version=str(version), state="LOADING")
        for version in self.encoders:
            answer.models.add(name=ENCODER, version=str(version), state="READY")
        return answer

    async def ModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        answer = service_pb2.ModelMetadataResponse()
        for name in ENCODE_INPUTS:
            answer.inputs.add(name=name)
        return answer

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        version = int(request.model_version)
        assert request.model_name == ENCODER
        self.encoder_asked.append(version)
        if version in self.encoder_dead:
            await context.abort(grpc.StatusCode.INTERNAL, f"Stub process '{ENCODER}' is not healthy.")
        vectors = inputs_of(request)["history_keys"].astype(np.float32) + (version in self.encoder_wrong)
        answer = service_pb2.ModelInferResponse(raw_output_contents=[vectors.tobytes()])
        answer.outputs.add(name="user_vector", datatype="FP32", shape=vectors.shape)
        return answer


def write_repository(repository: Path, versions: range, listed: str) -> Path:
    """The recommender's folder. In its versions' golden requests every second has a vector of its own."""
    folder = repository / "recommender"
    keys = np.arange(1, 17).reshape(4, 4)
    fresh = np.arange(4, dtype=np.int32)[:, None] % 2
    golden: dict[str, NDArray[Any]] = {
        "in:history_keys": keys,
        "in:user_vector_fresh": fresh,
        "out:item_keys": keys,
        "out:scores": np.ones((4, 4), np.float32),
        "out:reason_keys": keys,
        "out:user_vector": np.where(fresh, 0.5, keys).astype(np.float32),
    }
    for version in versions:
        savedmodel = folder / str(version) / "model.savedmodel"
        savedmodel.mkdir(parents=True)
        (savedmodel / "saved_model.pb").write_bytes(b"tf")
        np.savez(folder / str(version) / "golden.npz", **golden)  # type: ignore[arg-type]  # numpy's own flag
    list_versions(folder, listed)
    return folder


def list_versions(folder: Path, listed: str) -> None:
    (folder / "config.pbtxt").write_text(
        'name: "recommender" platform: "tensorflow_savedmodel" backend: "tensorflow" max_batch_size: 64 '
        f"version_policy {{ specific {{ versions: [{listed}] }} }} instance_group {{ kind: KIND_CPU }} "
        'parameters { key: "TF_NUM_INTRA_THREADS" value { string_value: "3" } }'
    )
