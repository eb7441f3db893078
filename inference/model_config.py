"""The model's `config.pbtxt`, built with Triton's own protobuf from the SavedModel's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from inference.signature import OUTPUT_SETS, RECOMMEND, Signature, Tensor

MAX_BATCH = 64
WARM_BATCHES = (1, 8, 32, 64)
"""Batch sizes run before a version counts as ready; the first run of a shape is slow."""

WARM_WIDTH = 64
"""Width that an input of free width is warmed with."""

TRITON_TYPES = {
    "int64": model_config_pb2.TYPE_INT64,
    "int32": model_config_pb2.TYPE_INT32,
    "float32": model_config_pb2.TYPE_FP32,
    "bool": model_config_pb2.TYPE_BOOL,
}


@dataclass(frozen=True, slots=True)
class Profile:
    """What a machine is like, as far as the model's configuration depends on it. 0 threads: TensorFlow
    chooses.
    """

    instances: int
    gpu: bool
    intra_op_threads: int
    inter_op_threads: int


PROFILES: Mapping[str, Profile] = {
    # One thread for a batch: on cores that the gateway needs too, threads that spin cost about a tenth more.
    "cpu": Profile(instances=1, gpu=False, intra_op_threads=1, inter_op_threads=1),
    "gpu": Profile(instances=1, gpu=True, intra_op_threads=0, inter_op_threads=0),
}


def warmup_file(tensor: Tensor) -> str:
    """Name, in the model's `warmup/` folder, of the file that holds `MAX_BATCH` rows of one input.

    The width is part of it, so that files for new widths never replace those of a configuration in use.
    """
    return f"{tensor.name}_{_warm_width(tensor)}.raw"


def _warm_width(tensor: Tensor) -> int:
    width = tensor.dims[0]
    return WARM_WIDTH if width == -1 else width


def build_config(name: str, signature: Signature, profile: Profile) -> model_config_pb2.ModelConfig:
    """The configuration that serves `signature` as the model `name`.

    It names platform and backend: the Python-based backend of this package and the native one of NVIDIA's
    images both load it.
    """
    config = model_config_pb2.ModelConfig(
        name=name, platform="tensorflow_savedmodel", backend="tensorflow", max_batch_size=MAX_BATCH
    )
    config.version_policy.latest.num_versions = 1
    for tensor in signature.inputs:
        config.input.add(name=tensor.name, data_type=TRITON_TYPES[tensor.dtype], dims=tensor.dims)
    for tensor in signature.outputs:
        config.output.add(name=tensor.name, data_type=TRITON_TYPES[tensor.dtype], dims=tensor.dims)
    kind = (
        model_config_pb2.ModelInstanceGroup.KIND_GPU
        if profile.gpu
        else model_config_pb2.ModelInstanceGroup.KIND_CPU
    )
    config.instance_group.add(count=profile.instances, kind=kind)
    # Neither a delay nor a queue policy: with a queue limit or timeout, Triton's batcher prepares no batch
    # ahead and misses wake-ups, so calls stand still for its 500 ms poll
    # (docs/decisions/0004-no-queue-policy-in-triton.md).
    config.dynamic_batching.SetInParent()
    parameters = {
        "TF_SIGNATURE_DEF": RECOMMEND,
        "TF_NUM_INTRA_THREADS": str(profile.intra_op_threads),
        "TF_NUM_INTER_THREADS": str(profile.inter_op_threads),
        # Triton's own warm-up asks for all outputs at once; this is for the other sets. The native backend
        # does not know it and passes it over.
        "WARM_OUTPUT_SETS": ";".join(",".join(names) for names in OUTPUT_SETS),
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    for batch in WARM_BATCHES:
        warmup = config.model_warmup.add(name=f"batch_{batch}", batch_size=batch)
        for tensor in signature.inputs:
            data = warmup.inputs[tensor.name]
            data.data_type = TRITON_TYPES[tensor.dtype]
            data.dims.append(_warm_width(tensor))
            data.input_data_file = warmup_file(tensor)
    return config


def warmup_data(signature: Signature, requests: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    """File name → raw little-endian rows: `requests` repeated to `MAX_BATCH` rows, so fresh and other rows
    mix.
    """
    files = {}
    for tensor in signature.inputs:
        rows = requests[tensor.name]
        # An input of free width is cut or padded, on the left as everywhere.
        missing = _warm_width(tensor) - rows.shape[1]
        rows = np.pad(rows, ((0, 0), (max(0, missing), 0)))[:, max(0, -missing) :]
        repeated = np.tile(rows, (-(-MAX_BATCH // len(rows)), 1))[:MAX_BATCH]
        files[warmup_file(tensor)] = repeated.tobytes()
    return files


def to_text(config: model_config_pb2.ModelConfig) -> str:
    """The text of `config.pbtxt`."""
    return str(text_format.MessageToString(config))


def from_text(text: str) -> model_config_pb2.ModelConfig:
    """Parse a `config.pbtxt`.

    Raises:
        ValueError: it is not one.
    """
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as exc:
        raise ValueError(str(exc)) from exc
    return config
