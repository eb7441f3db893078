"""Managing the versions of a Triton, and what its refusals become."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from features.settings import Settings
from inference.access import admin_token
from inference.control import ModelControl, open_control
from inference.errors import LoadFailed, NoAnswer, NotAllowed, NothingPublished
from inference.proof import open_channel
from tests.ports import free_ports
from tests.unit.inference.fake_encoders import FakeEncoders
from tests.unit.inference.fake_triton import TOKEN, FakeTriton, serving

TRACEBACK = (
    "OutOfRangeError: Graph execution error:\n\nRead less bytes\n\t [[{{node RestoreV2}}]]"
    "\nHint: report_tensor_allocations\n\nAt:\n  session.py(1426): _do_call\n"
)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Versions 1 and 2 are listed."""
    folder = tmp_path / "recommender"
    folder.mkdir()
    (folder / "config.pbtxt").write_text(
        'name: "recommender" version_policy { specific { versions: [1, 2] } }'
    )
    return folder


@asynccontextmanager
async def control_of(triton: FakeTriton, folder: Path, token: str = TOKEN) -> AsyncIterator[ModelControl]:
    async with serving(triton) as address, open_channel(address) as channel:
        yield ModelControl(channel, folder, token)


async def test_what_is_listed_is_loaded_unless_versions_are_named(model_folder: Path) -> None:
    triton = FakeTriton()
    async with control_of(triton, model_folder) as control:
        await control.load()
        await control.load([2])
    assert triton.loads == [[1, 2], [2]]


async def test_a_load_that_fails_is_told_in_one_sentence(model_folder: Path) -> None:
    async with control_of(FakeTriton({2: TRACEBACK}), model_folder) as control:
        with pytest.raises(LoadFailed) as caught:
            await control.load()
        states = await control.states()
    sentence = "Internal: OutOfRangeError: Graph execution error: Read less bytes [[{{node RestoreV2}}]]"
    assert (
        str(caught.value) == f"Triton cannot load recommender: version 2 is at UNAVAILABLE state: {sentence}"
    )
    assert states == {2: ("UNAVAILABLE", sentence)}


async def test_a_model_is_unloaded_and_a_refusal_is_told(model_folder: Path) -> None:
    triton = FakeEncoders()
    triton.encoders = {1}
    async with control_of(triton, model_folder.with_name("user_encoder")) as control:
        await control.unload()
        assert triton.encoders == set()
        triton.away = True
        with pytest.raises(NoAnswer):
            await control.unload()
    async with control_of(FakeTriton(), model_folder) as control:
        with pytest.raises(LoadFailed, match="Triton cannot unload recommender: "):
            await control.unload()


async def test_states_are_of_this_models_versions(model_folder: Path) -> None:
    async with control_of(FakeTriton(), model_folder) as control:
        assert await control.states() == {}
        await control.load([1])
        assert await control.states() == {1: ("READY", "")}
        assert await control.ready(1)
        assert not await control.ready(2)


async def test_a_wrong_token_is_said_to_be_one(model_folder: Path) -> None:
    triton = FakeTriton()
    async with control_of(triton, model_folder, "another") as control:
        for call in (control.load, control.states):
            with pytest.raises(NotAllowed, match="RIPTIDE_TRITON_ADMIN_TOKEN"):
                await call()
    assert triton.loads == []


async def test_a_triton_that_is_not_there_gives_no_answer(model_folder: Path) -> None:
    (port,) = free_ports(1)
    async with open_channel(f"127.0.0.1:{port}") as channel:
        control = ModelControl(channel, model_folder, TOKEN)
        for call in (control.load, control.states):
            with pytest.raises(NoAnswer, match="Triton does not answer: UNAVAILABLE"):
                await call()
        assert not await control.ready(1)


async def test_without_a_configuration_nothing_is_loaded(tmp_path: Path) -> None:
    triton = FakeTriton()
    async with control_of(triton, tmp_path / "recommender") as control:
        with pytest.raises(NothingPublished, match="publish a version first"):
            await control.load()
    assert triton.loads == []


async def test_the_token_is_the_launchers_unless_one_is_set(model_folder: Path, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", model_repository=model_folder.parent)
    for token in (None, TOKEN):
        one = settings.model_copy(update={"triton_admin_token": token})
        async with serving(FakeTriton()) as address, open_channel(address) as channel:
            control = open_control(one, channel)
            if token is None:
                assert admin_token(settings) != TOKEN
                with pytest.raises(NotAllowed):
                    await control.states()
            else:
                assert await control.states() == {}
