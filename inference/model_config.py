"""The model's `config.pbtxt`, built with Triton's own protobuf from the SavedModel's signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from inference.signature import (
    ADDED_INPUTS,
    ENCODE,
    ENCODE_INPUTS,
    ENCODE_OUTPUT,
    INPUTS,
    OUTPUT_SETS,
    OUTPUTS,
    RECOMMEND,
    SINGLE,
    Signature,
)

CONFIG = "config.pbtxt"
"""The file's name in the model's folder."""

MAX_BATCH = 64

ENCODER_NICE = 5
"""How much lower the encoder's priority is than the recommender's: users wait for that one only. Where both
want a core, it gets a quarter of it."""

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


def build_config(
    name: str, signature: Signature, profile: Profile, versions: Sequence[int]
) -> model_config_pb2.ModelConfig:
    """The configuration that serves `versions`, the stable one first, of the model `name`.

    It names platform and backend: the Python-based backend of this package and the native one of NVIDIA's
    images both load it. Apart from `versions` it is the same for all signatures that have the same tensors,
    whatever their widths, and whichever of `ADDED_INPUTS` they have: those are always listed, as optional.
    So they are served side by side, since Triton leaves a running version alone only if nothing but the list
    of versions differs. What a version takes of the optional inputs, its `manifest.json` says.
    """
    config = model_config_pb2.ModelConfig(
        name=name, platform="tensorflow_savedmodel", backend="tensorflow", max_batch_size=MAX_BATCH
    )
    config.version_policy.specific.versions.extend(versions)
    for name in sorted(ADDED_INPUTS.union(tensor.name for tensor in signature.inputs)):
        _add_input(config, name)
    for tensor in signature.outputs:
        config.output.add(name=tensor.name, data_type=TRITON_TYPES[tensor.dtype], dims=[-1])
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
        # Not Triton's own warm-up: its rows have one version's widths, and run at full priority beside the
        # versions that serve. The native backend does not know this parameter and passes it over.
        "WARM_OUTPUT_SETS": ";".join(",".join(names) for names in OUTPUT_SETS),
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def encoder_config(
    name: str, recommender: model_config_pb2.ModelConfig, versions: Sequence[int]
) -> model_config_pb2.ModelConfig:
    """The configuration that serves `versions` of the encoder `name`, on what the recommender runs on.

    It is the same for all versions, as that of the recommender is.
    """
    config = model_config_pb2.ModelConfig(
        name=name,
        platform=recommender.platform,
        backend=recommender.backend,
        max_batch_size=recommender.max_batch_size,
    )
    config.version_policy.specific.versions.extend(versions)
    for tensor in ENCODE_INPUTS:
        _add_input(config, tensor)
    config.output.add(name=ENCODE_OUTPUT, data_type=TRITON_TYPES[OUTPUTS[ENCODE_OUTPUT]], dims=[-1])
    for group in recommender.instance_group[:1]:
        config.instance_group.add(count=1, kind=group.kind)
    config.dynamic_batching.SetInParent()
    for key in ("TF_NUM_INTRA_THREADS", "TF_NUM_INTER_THREADS"):
        if key in recommender.parameters:
            config.parameters[key].CopyFrom(recommender.parameters[key])
    for key, value in {
        "TF_SIGNATURE_DEF": ENCODE,
        "WARM_OUTPUT_SETS": ENCODE_OUTPUT,
        # Our own, too, as `WARM_OUTPUT_SETS` is.
        "CPU_NICE": str(ENCODER_NICE),
    }.items():
        config.parameters[key].string_value = value
    return config


def _add_input(config: model_config_pb2.ModelConfig, name: str) -> None:
    config.input.add(
        name=name,
        data_type=TRITON_TYPES[INPUTS[name]],
        dims=[1] if name in SINGLE else [-1],
        optional=name in ADDED_INPUTS,
    )


def versions_of(config: model_config_pb2.ModelConfig) -> list[int]:
    """The versions that the configuration lists, the stable one first; none if its policy is another one."""
    return list(config.version_policy.specific.versions)


def with_versions(
    config: model_config_pb2.ModelConfig, versions: Sequence[int]
) -> model_config_pb2.ModelConfig:
    """The same configuration for other versions."""
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    changed.version_policy.Clear()
    changed.version_policy.specific.versions.extend(versions)
    return changed


def to_text(config: model_config_pb2.ModelConfig) -> str:
    """The text of `config.pbtxt`."""
    return str(text_format.MessageToString(config))


def to_json(config: model_config_pb2.ModelConfig) -> str:
    """As Triton takes it in a call."""
    return str(json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None))


def from_text(text: str) -> model_config_pb2.ModelConfig:
    """Parse a `config.pbtxt`.

    Raises:
        ValueError: it is not one.
    """
    config = model_config_pb2.ModelConfig()
    config.CopyFrom(_parsed(text))
    return config


@lru_cache(maxsize=8)
def _parsed(text: str) -> model_config_pb2.ModelConfig:
    # Kept, as the driver reads its files several times a second and they hardly ever change: the parser of
    # text is slow, and took most of the driver's time.
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as exc:
        raise ValueError(str(exc)) from exc
    return config
