"""Following which versions are ready, against a Triton that speaks gRPC and does as it is told."""

from __future__ import annotations

import gc
import json
import shutil
import weakref

import grpc
import numpy as np
import pytest

from features.schema import EventType
from features.settings import Settings
from gateway.scorer import triton_channel
from gateway.versions import Versions
from tests.unit.gateway.fakes import INPUTS, OUTPUTS, FakeTriton


async def test_every_version_that_is_ready_can_be_called_with_its_own_widths(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    triton.has(1, 3)
    await versions.look()
    assert {n: one.inputs["history_keys"].width for n, one in versions.ready.items()} == {1: 4, 3: 6}
    assert versions.ready[1].inputs["exclude_keys"].width == 0
    assert len(versions.ready[3].catalog) == 30


async def test_a_version_that_stays_is_not_taken_up_anew_and_one_that_goes_is_dropped(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    triton.has(1, 2)
    await versions.look()
    before = versions.ready[2]
    triton.has(2, 3)
    await versions.look()
    assert versions.ready.keys() == {2, 3}
    assert versions.ready[2] is before


async def test_a_catalogue_goes_with_the_last_request_that_reads_it_and_is_shared_until_then(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    triton.has(1, 2)
    await versions.look()
    in_flight = versions.ready[1]
    for has in ((2,), (1, 2), (2,)):
        triton.has(*has)
        await versions.look()
        if 1 in has:
            assert versions.ready[1].catalog is in_flight.catalog
    catalog = weakref.ref(in_flight.catalog)
    del in_flight
    gc.collect()
    assert catalog() is None


async def test_a_triton_that_is_gone_has_no_versions_and_a_restarted_one_is_found_again(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    for has in ((1, 2), (), (1,)):
        triton.has(*has)
        await versions.look()
        assert versions.ready.keys() == set(has)


async def test_a_version_that_goes_while_it_is_looked_at_keeps_no_other_from_being_called(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    triton.has(1, 2, 3)
    triton.fails_for = "2"
    await versions.look()
    assert versions.ready.keys() == {1, 3}
    assert versions.refused == {}


async def test_triton_is_reached_past_a_proxy_that_is_set_for_the_way_out(
    settings: Settings, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    triton.has(1)
    channel = triton_channel(triton.target)
    versions = Versions(settings, channel)
    await versions.look()
    assert versions.ready.keys() == {1}
    await channel.close()


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        (
            INPUTS | {"mood": ("INT64", 1)},
            OUTPUTS,
            "it wants an input 'mood', which this gateway cannot fill",
        ),
        (INPUTS | {"history_keys": ("FP32", 5)}, OUTPUTS, "input 'history_keys' must be INT64, not FP32"),
        (
            INPUTS | {"history_keys": ("INT64", 4)},
            OUTPUTS,
            "input 'history_keys' must have the shape [-1, 5], not [-1, 4]",
        ),
        (
            INPUTS | {"request_time": ("INT64", 2)},
            OUTPUTS,
            "input 'request_time' must have the shape [-1, 1], not [-1, 2]",
        ),
        (
            INPUTS | {"exclude_keys": ("INT64", 8)},
            OUTPUTS,
            "input 'exclude_keys' must have the shape [-1, -1], not [-1, 8]",
        ),
        (
            INPUTS | {"user_vector": ("FP32", -1)},
            OUTPUTS,
            "its manifest must say a width D of at least 1, for the input 'user_vector'",
        ),
        (INPUTS, OUTPUTS[:2], "it lacks the output 'reason_keys'"),
    ],
)
async def test_a_version_that_does_not_fit_is_refused_with_the_reason_said_once(
    settings: Settings,
    triton: FakeTriton,
    channel: grpc.aio.Channel,
    caplog: pytest.LogCaptureFixture,
    inputs: dict[str, tuple[str, int]],
    outputs: list[str],
    sentence: str,
) -> None:
    versions = Versions(settings, channel)
    triton.versions = {"1": (INPUTS, OUTPUTS), "2": (inputs, outputs)}
    await versions.look()
    await versions.look()
    assert versions.ready.keys() == {1}
    assert versions.refused == {2: sentence}
    assert caplog.text.count(f"version 2 is not served: {sentence}") == 1


async def test_a_width_that_triton_has_fixed_fits_if_the_manifest_says_the_same(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    triton.versions = {"2": (INPUTS | {"history_keys": ("INT64", 5), "request_time": ("INT64", 1)}, OUTPUTS)}
    await versions.look()
    assert {name: tensor.width for name, tensor in versions.ready[2].inputs.items()} == {
        "history_keys": 5,
        "exclude_keys": 0,
        "request_time": 1,
    }


async def test_a_refused_version_that_goes_and_comes_back_made_right_can_be_called(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    versions = Versions(settings, channel)
    for outputs, refused in ((OUTPUTS[:2], {2}), (None, set()), (OUTPUTS, set())):
        triton.versions = {"1": (INPUTS, OUTPUTS)} | ({"2": (INPUTS, outputs)} if outputs else {})
        await versions.look()
        assert versions.refused.keys() == refused
    assert versions.ready.keys() == {1, 2}


@pytest.mark.parametrize("name", ["catalog.lmdb", "manifest.json"])
async def test_a_version_whose_files_cannot_be_read_is_tried_again_with_the_next_look(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel, name: str
) -> None:
    file = settings.model_repository / "recommender" / "2" / name
    whole = file.read_bytes()
    file.write_bytes(b"{}")
    versions = Versions(settings, channel)
    triton.has(1, 2)
    await versions.look()
    assert versions.ready.keys() == {1}
    assert name in versions.refused[2]
    file.write_bytes(whole)
    await versions.look()
    assert (versions.ready.keys(), versions.refused) == ({1, 2}, {})


async def test_a_manifest_whose_widths_are_no_numbers_is_refused(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    file = settings.model_repository / "recommender" / "2" / "manifest.json"
    file.write_text(json.dumps({"widths": {"T": "wide"}}))
    versions = Versions(settings, channel)
    triton.has(2)
    await versions.look()
    assert "has no widths that can be read" in versions.refused[2]


ADDED = {
    "history_types": ("INT32", -1),
    "user_features": ("INT64", -1),
    "surface": ("INT64", 1),
    "diversity": ("FP32", 1),
}


def says(settings: Settings, version: int, **fields: object) -> None:
    """Writes these fields into a version's manifest."""
    file = settings.model_repository / "recommender" / str(version) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))


async def test_of_the_inputs_that_triton_lists_for_all_a_version_has_those_that_its_manifest_names(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    inputs = sorted({*INPUTS, *ADDED})
    says(
        settings,
        2,
        inputs=inputs,
        widths={"T": 5, "F": 2},
        attributes=["age", "country"],
        consumes=["LIKE"],
        ignores=["VIEW", "READ"],
    )
    says(settings, 3, inputs=[*INPUTS, "surface"], consumes=[], ignores=[])
    triton.versions = {str(version): (INPUTS | ADDED, OUTPUTS) for version in (1, 2, 3)}
    versions = Versions(settings, channel)
    await versions.look()
    older, ranking, third = (versions.ready[version] for version in (1, 2, 3))
    assert (older.inputs.keys(), older.attributes) == (INPUTS.keys(), ())
    assert older.consumes is older.counts is None
    assert {name: ranking.inputs[name].width for name in ADDED} == {
        "history_types": 5,
        "user_features": 2,
        "surface": 1,
        "diversity": 1,
    }
    assert ranking.attributes == ("age", "country")
    assert ranking.consumes is not None
    assert np.flatnonzero(ranking.consumes).tolist() == [EventType.LIKE]
    assert ranking.counts is not None
    assert np.flatnonzero(~ranking.counts).tolist() == [EventType.VIEW, EventType.READ]
    assert third.counts is None
    assert third.inputs.keys() == {*INPUTS, "surface"}
    assert third.consumes is not None
    assert not third.consumes.any()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"inputs": ["mood"]}, "it takes an input 'mood', which Triton's configuration lacks"),
        ({"consumes": ["DREAM"]}, "says what no gateway of this release understands (KeyError('DREAM'))"),
        ({"ignores": ["DREAM"]}, "says what no gateway of this release understands (KeyError('DREAM'))"),
        ({"attributes": 3}, "says what no gateway of this release understands"),
        ({"widths": {"T": 5, "F": 3}, "attributes": ["age"]}, "says a width F of 3, and 1 attributes"),
    ],
)
async def test_a_manifest_that_contradicts_triton_or_itself_is_refused(
    settings: Settings,
    triton: FakeTriton,
    channel: grpc.aio.Channel,
    fields: dict[str, object],
    sentence: str,
) -> None:
    says(settings, 2, **fields)
    triton.has(1, 2)
    versions = Versions(settings, channel)
    await versions.look()
    assert versions.ready.keys() == {1}
    assert sentence in versions.refused[2]


async def test_a_folder_whose_name_is_no_number_is_no_version(
    settings: Settings, channel: grpc.aio.Channel
) -> None:
    repository = settings.model_repository / "recommender"
    shutil.copytree(repository / "2", repository / "4.bak")
    assert Versions(settings, channel).published() == [3, 2, 1]


@pytest.mark.parametrize(
    ("policy", "of_slow", "of_quick"), [("auto", 20.0, 0.0), ("strict", 0.0, 0.0), ("bounded", 20.0, 20.0)]
)
async def test_vectors_may_lag_for_slow_encoders_unless_the_setting_says_otherwise(
    settings: Settings,
    triton: FakeTriton,
    channel: grpc.aio.Channel,
    policy: str,
    of_slow: float,
    of_quick: float,
) -> None:
    says(settings, 1, vectors_may_lag=True)
    triton.has(1, 2)
    told = settings.model_copy(update={"freshness": policy, "freshness_max_lag_s": 20.0})
    versions = Versions(told, channel)
    await versions.look()
    assert [versions.ready[number].max_lag_s for number in (1, 2)] == [of_slow, of_quick]
