"""The model's configuration and the contract that a signature has to keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inference.errors import UnfitModel
from inference.model_config import PROFILES, build_config, from_text, to_text, warmup_data
from inference.signature import OUTPUT_SETS, Signature, read_signature


def report(**changes: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = {
        "inputs": {
            "history_keys": ["int64", [-1, 8]],
            "history_times": ["int64", [-1, 8]],
            "request_time": ["int64", [-1, 1]],
            "user_vector": ["float32", [-1, 4]],
            "user_vector_fresh": ["int32", [-1, 1]],
            "exclude_keys": ["int64", [-1, -1]],
            "allowed_categories": ["bool", [-1, 3]],
        },
        "outputs": {
            "item_keys": ["int64", [-1, 10]],
            "scores": ["float32", [-1, 10]],
            "reason_keys": ["int64", [-1, 10]],
            "user_vector": ["float32", [-1, 4]],
        },
    }
    for name, tensor in changes.items():
        side, _, key = name.partition("__")
        if tensor is None:
            del tensors[side][key]
        else:
            tensors[side][key] = tensor
    return tensors


@pytest.fixture
def signature() -> Signature:
    return read_signature(report())


def test_widths_are_those_of_the_contract(signature: Signature) -> None:
    assert signature.widths == {"T": 8, "D": 4, "C": 3, "K": 10}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"inputs__mood": ["int64", [-1, 1]]}, "input 'mood' is not part of the tensor contract"),
        ({"inputs__history_keys": ["int32", [-1, 8]]}, "'history_keys' is int32, and must be int64"),
        ({"inputs__history_keys": ["int64", [-1, -1]]}, "must be .-1, width."),
        ({"inputs__exclude_keys": ["int64", [-1, 16]]}, "must be .-1, -1.: both free"),
        ({"inputs__history_keys": ["int64", [4, 8]]}, "must be .-1, width."),
        ({"outputs__scores": None}, "no output 'scores'"),
        ({"outputs__scores": ["float32", [-1, 9]]}, "'scores' has width 9"),
        ({"outputs__user_vector": ["float32", [-1, 5]]}, "could not be cached"),
    ],
)
def test_a_signature_that_breaks_the_contract_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UnfitModel, match=says):
        read_signature(report(**changes))


def test_a_version_may_do_without_an_input(signature: Signature) -> None:
    assert len(read_signature(report(inputs__history_times=None)).inputs) == len(signature.inputs) - 1


def test_the_text_is_read_back_as_the_same_configuration(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"])
    assert from_text(to_text(config)) == config


def test_platform_and_backend_are_both_named(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"])
    assert (config.platform, config.backend) == ("tensorflow_savedmodel", "tensorflow")
    assert config.parameters["TF_SIGNATURE_DEF"].string_value == "recommend"


def test_batching_has_neither_delay_nor_queue_policy(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.dynamic_batching.ByteSize() == 0


@pytest.mark.parametrize(("profile", "kind"), [("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_the_profile_decides_what_it_runs_on(signature: Signature, profile: str, kind: str) -> None:
    config = build_config("recommender", signature, PROFILES[profile])
    (group,) = config.instance_group
    assert group.Kind.Name(group.kind) == kind


def ones(signature: Signature, rows: int) -> dict[str, np.ndarray]:
    """One request's arrays; free widths are 5."""
    return {
        tensor.name: np.ones((rows, 5 if tensor.dims == (-1,) else tensor.dims[0]), tensor.dtype)
        for tensor in signature.inputs
    }


def test_each_batch_size_is_warmed_with_enough_rows(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"])
    dtypes = {tensor.name: tensor.dtype for tensor in signature.inputs}
    requests = ones(signature, rows=3)
    files = warmup_data(signature, requests)
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 8, 32, 64]
    for warmup in config.model_warmup:
        assert warmup.inputs.keys() == dtypes.keys()
        for name, data in warmup.inputs.items():
            row = np.dtype(dtypes[name]).itemsize * int(np.prod(data.dims))
            assert len(files[data.input_data_file]) == 64 * row


def test_warm_up_rows_mix_the_requests(signature: Signature) -> None:
    requests = ones(signature, rows=2)
    requests["user_vector_fresh"][1] = 0
    rows = np.frombuffer(warmup_data(signature, requests)["user_vector_fresh_1.raw"], np.int32)
    assert set(rows[:2]) == {0, 1}


def test_text_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="flavour"):
        from_text("flavour: 1")


def test_every_set_of_outputs_that_callers_ask_for_is_warmed_before_a_version_is_ready(
    signature: Signature,
) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"])
    warmed = config.parameters["WARM_OUTPUT_SETS"].string_value.split(";")
    assert {frozenset(names.split(",")) for names in warmed} == {frozenset(names) for names in OUTPUT_SETS}


def test_an_input_of_free_width_is_warmed_with_the_newest_columns(signature: Signature) -> None:
    rows = ones(signature, rows=2)
    rows["exclude_keys"] = np.arange(200, dtype=np.int64).reshape(2, 100)
    wide = np.frombuffer(warmup_data(signature, rows)["exclude_keys_64.raw"], np.int64).reshape(64, 64)
    assert wide[0].tolist() == list(range(36, 100))
    rows["exclude_keys"] = np.array([[7], [8]])
    narrow = np.frombuffer(warmup_data(signature, rows)["exclude_keys_64.raw"], np.int64).reshape(64, 64)
    assert narrow[1].tolist() == [0] * 63 + [8]
    config = build_config("recommender", signature, PROFILES["cpu"])
    assert [t.dims for t in config.input if t.name == "exclude_keys"] == [[-1]]
    assert config.model_warmup[0].inputs["exclude_keys"].dims == [64]
