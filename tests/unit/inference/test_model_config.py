"""The model's configuration and the contract that a signature has to keep."""

from __future__ import annotations

from typing import Any

import pytest

from inference.errors import UnfitModel
from inference.model_config import (
    PROFILES,
    build_config,
    encoder_config,
    from_text,
    to_text,
    versions_of,
    with_versions,
)
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
        ({"inputs__request_time": ["int64", [-1, 2]]}, "must be .-1, 1.: one value a row"),
        (
            {"inputs__history_times": ["int64", [-1, 9]]},
            "'history_times' has width 9, but history_keys has 8",
        ),
        (
            {"inputs__history_types": ["int32", [-1, 9]]},
            "'history_types' has width 9, but history_keys has 8",
        ),
        ({"inputs__history_types": ["int64", [-1, 8]]}, "'history_types' is int64, and must be int32"),
        ({"inputs__diversity": ["float32", [-1, 2]]}, "must be .-1, 1.: one value a row"),
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
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    assert from_text(to_text(config)) == config


def test_platform_and_backend_are_both_named(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    assert (config.platform, config.backend) == ("tensorflow_savedmodel", "tensorflow")
    assert config.parameters["TF_SIGNATURE_DEF"].string_value == "recommend"


def test_batching_has_neither_delay_nor_queue_policy(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.dynamic_batching.ByteSize() == 0


@pytest.mark.parametrize(("profile", "kind"), [("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")])
def test_the_profile_decides_what_it_runs_on(signature: Signature, profile: str, kind: str) -> None:
    config = build_config("recommender", signature, PROFILES[profile], [1])
    (group,) = config.instance_group
    assert group.Kind.Name(group.kind) == kind


def test_text_that_is_no_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="flavour"):
        from_text("flavour: 1")


def test_every_set_of_outputs_that_callers_ask_for_is_warmed_before_a_version_is_ready(
    signature: Signature,
) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    warmed = config.parameters["WARM_OUTPUT_SETS"].string_value.split(";")
    assert {frozenset(names.split(",")) for names in warmed} == {frozenset(names) for names in OUTPUT_SETS}


def test_versions_of_other_widths_have_the_same_configuration(signature: Signature) -> None:
    wider = report(
        inputs__history_keys=["int64", [-1, 80]],
        inputs__history_times=["int64", [-1, 80]],
        inputs__user_vector=["float32", [-1, 40]],
        inputs__allowed_categories=["bool", [-1, 30]],
        outputs__user_vector=["float32", [-1, 40]],
    )
    wider["outputs"] |= {
        name: [dtype, [-1, 100]] for name, (dtype, _) in wider["outputs"].items() if name != "user_vector"
    }
    one, other = (
        build_config("recommender", found, PROFILES["cpu"], [1])
        for found in (signature, read_signature(wider))
    )
    assert one == other
    dims = {tensor.name: list(tensor.dims) for tensor in (*one.input, *one.output)}
    single = ("request_time", "user_vector_fresh", "surface", "diversity")
    assert [dims.pop(name) for name in single] == [[1]] * 4
    assert set(map(tuple, dims.values())) == {(-1,)}


ADDED = {
    "inputs__history_types": ["int32", [-1, 8]],
    "inputs__user_features": ["int64", [-1, 3]],
    "inputs__surface": ["int64", [-1, 1]],
    "inputs__diversity": ["float32", [-1, 1]],
}


def test_a_version_with_the_inputs_of_this_release_and_an_older_one_have_the_same_configuration(
    signature: Signature,
) -> None:
    ranking = read_signature(report(**ADDED))
    assert ranking.widths == {"T": 8, "F": 3, "D": 4, "C": 3, "K": 10}
    config = build_config("recommender", ranking, PROFILES["cpu"], [1])
    assert config == build_config("recommender", signature, PROFILES["cpu"], [1])
    optional = {tensor.name for tensor in config.input if tensor.optional}
    assert optional == {name.removeprefix("inputs__") for name in ADDED}


def test_the_listed_versions_are_replaced_and_nothing_else(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    changed = with_versions(config, [1, 2])
    assert (versions_of(config), versions_of(changed)) == ([1], [1, 2])
    assert with_versions(changed, [1]) == config


@pytest.mark.parametrize("profile", PROFILES)
def test_the_encoder_runs_on_what_the_recommender_runs_on(signature: Signature, profile: str) -> None:
    recommender = build_config("recommender", signature, PROFILES[profile], [4, 5])
    before = to_text(recommender)
    config = encoder_config("user_encoder", recommender, [5])
    assert to_text(recommender) == before
    assert from_text(to_text(config)) == config
    assert (config.name, versions_of(config), config.max_batch_size) == ("user_encoder", [5], 64)
    assert config.instance_group[0].kind == recommender.instance_group[0].kind
    threads = [config.parameters[f"TF_NUM_{kind}_THREADS"].string_value for kind in ("INTRA", "INTER")]
    assert threads == (["1", "1"] if profile == "cpu" else ["0", "0"])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


def test_a_recommenders_configuration_that_leaves_things_out_does_for_an_encoder(
    signature: Signature,
) -> None:
    bare = build_config("recommender", signature, PROFILES["cpu"], [1])
    bare.ClearField("instance_group")
    bare.parameters.clear()
    config = encoder_config("user_encoder", bare, [1])
    assert not config.instance_group
    assert "TF_NUM_INTRA_THREADS" not in config.parameters
    assert config.parameters["TF_SIGNATURE_DEF"].string_value == "encode"


def test_another_policy_lists_no_version(signature: Signature) -> None:
    config = build_config("recommender", signature, PROFILES["cpu"], [1])
    config.version_policy.latest.num_versions = 1
    assert versions_of(config) == []
    assert versions_of(with_versions(config, [4])) == [4]


def test_a_configuration_that_was_changed_leaves_the_next_reading_of_the_same_text_alone() -> None:
    text = 'name: "a"'
    from_text(text).name = "b"
    assert from_text(text).name == "a"
