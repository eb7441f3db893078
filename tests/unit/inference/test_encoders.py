"""The encoder has the versions that the recommender has, and is no trouble to it whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from features.settings import Settings
from inference import encoders as module
from inference.encoders import Encoders
from inference.proof import open_channel
from tests.ports import free_ports
from tests.unit.inference.fake_encoders import FakeEncoders, list_versions, write_repository
from tests.unit.inference.fake_triton import TOKEN, serving


@pytest.fixture
def triton() -> FakeEncoders:
    """Version 1 of the recommender is ready."""
    triton = FakeEncoders()
    triton.ready = [1]
    return triton


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_repository(tmp_path, range(1, 4), listed="1")


@pytest.fixture
async def encoders(
    triton: FakeEncoders, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Encoders]:
    """What keeps them in step; time goes on by ticks."""
    for name in ("TICK_S", "PROBE_EVERY_S", "_AGAIN_S"):
        monkeypatch.setattr(module, name, 0.001)
    async with serving(triton) as address, open_channel(address) as channel:
        yield Encoders(settings_of(model_folder, address), channel)


def settings_of(model_folder: Path, address: str) -> Settings:
    return Settings(
        state_dir=model_folder.parent,
        model_repository=model_folder.parent,
        triton_address=address,
        triton_admin_token=TOKEN,
    )


@contextlib.asynccontextmanager
async def following(encoders: Encoders) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(encoders.follow())
    try:
        yield task
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def ticks(encoders: Encoders, count: int) -> None:
    for _ in range(count):
        await encoders.tick()


async def test_it_gets_each_version_that_the_recommender_has_one_at_a_time(
    triton: FakeEncoders, encoders: Encoders, model_folder: Path
) -> None:
    triton.ready = [1, 3]
    await ticks(encoders, 5)
    assert triton.encoder_loads == [[1], [1, 3]]
    assert triton.loads == []
    link = model_folder.parent / "user_encoder" / "3" / "model.savedmodel"
    assert link.resolve() == (model_folder / "3" / "model.savedmodel").resolve()


async def test_it_lets_go_of_a_version_that_the_recommender_no_longer_has(
    triton: FakeEncoders, encoders: Encoders, model_folder: Path
) -> None:
    triton.ready = [1, 2]
    await ticks(encoders, 3)
    triton.ready = [2]
    list_versions(model_folder, "2")
    await ticks(encoders, 3)
    assert triton.encoder_loads[2:] == [[2]]
    triton.ready = [3]
    list_versions(model_folder, "3")
    await ticks(encoders, 3)
    assert triton.encoder_loads[3:] == [[], [3]]


async def test_a_triton_without_a_recommender_is_left_alone(triton: FakeEncoders, encoders: Encoders) -> None:
    triton.ready, triton.encoders = [], {1}
    await ticks(encoders, 3)
    assert triton.encoder_loads == []


async def test_a_version_of_the_recommender_that_loads_or_is_still_to_come_goes_first(
    triton: FakeEncoders, encoders: Encoders, model_folder: Path
) -> None:
    triton.loading = {2}
    await ticks(encoders, 3)
    assert triton.encoder_loads == []
    triton.loading = set()
    list_versions(model_folder, "1, 2")
    await ticks(encoders, 3)
    assert triton.encoder_loads == []
    triton.broken[2] = "it has been tried"
    await ticks(encoders, 1)
    assert triton.encoder_loads == [[1]]


async def test_versions_that_a_driver_before_left_are_proven_and_not_loaded_again(
    triton: FakeEncoders, encoders: Encoders
) -> None:
    triton.encoders = {1}
    await ticks(encoders, 3)
    assert triton.encoder_loads == []
    assert triton.encoder_asked == [1, 1]  # all rows, and one


async def test_an_encoder_that_answers_wrongly_is_let_go_of(
    triton: FakeEncoders, encoders: Encoders, caplog: pytest.LogCaptureFixture
) -> None:
    triton.encoder_wrong = {2}
    await ticks(encoders, 1)
    triton.ready = [1, 2]
    await ticks(encoders, 2)
    assert triton.encoder_loads == [[1], [1, 2], [1]]
    assert "version 2 answers golden requests wrongly: user_vector: row 0 is off by 1" in caplog.text


async def test_a_failed_load_is_told_once_and_tried_again_after_pauses_that_grow(
    triton: FakeEncoders,
    encoders: Encoders,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0, 0.0, 600.0))
    triton.encoder_broken = {2: "no memory"}
    triton.ready = [1, 2]
    await ticks(encoders, 7)
    assert triton.encoder_loads == [[1], [1, 2], [1, 2], [1, 2]]
    assert caplog.text.count("version 2 is without its encoder for now") == 1
    assert triton.encoders == {1}


async def test_a_version_without_the_signature_is_told_once_and_left(
    triton: FakeEncoders,
    encoders: Encoders,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    triton.encoder_broken = {1: "Internal: the SavedModel has no signature 'encode'; it has recommend"}
    triton.ready = [1, 2]
    await ticks(encoders, 4)
    assert triton.encoder_loads == [[1], [2]]
    assert caplog.text.count("version 1 has no encoder") == 1


async def test_an_encoder_whose_process_died_is_let_go_of_and_loaded_again(
    triton: FakeEncoders, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0,))
    triton.ready = [1, 2]
    async with following(encoders):
        await until(lambda: triton.encoders == {1, 2})
        triton.encoder_dead = {2}
        await until(lambda: triton.encoders == {1})
        triton.encoder_dead = set()
        await until(lambda: triton.encoders == {1, 2})
    assert triton.encoder_loads == [[1], [1, 2], [1], [1, 2]]


async def test_only_one_that_served_for_a_while_has_left_its_failures_behind(
    triton: FakeEncoders, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSES_S", (0.0, 600.0))
    async with following(encoders):
        for well_s in (0.0, 0.0, 60.0):
            monkeypatch.setattr(module, "_WELL_S", well_s)
            await until(lambda: encoders.proven == {1})
            triton.encoder_dead = {1}
            await until(lambda: triton.encoders == set())
            triton.encoder_dead = set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await until(lambda: triton.encoders == {1})


async def test_while_triton_is_away_nothing_is_said_and_afterwards_it_goes_on(
    triton: FakeEncoders, encoders: Encoders, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(encoders):
        await until(lambda: triton.encoders == {1})
        triton.away = True
        triton.encoders = set()  # that of after has none
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await until(lambda: triton.encoders != set())
        triton.away = False
        await until(lambda: triton.encoders == {1})
    assert "WARNING" not in caplog.text
    assert "ERROR" not in caplog.text


async def test_without_any_triton_it_waits(model_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    settings = settings_of(model_folder, f"127.0.0.1:{port}")
    async with open_channel(settings.triton_target) as channel, following(Encoders(settings, channel)):
        await asyncio.sleep(0.1)
    assert caplog.text == ""


async def test_an_error_that_nobody_foresaw_is_told_once_and_ends_nothing(
    triton: FakeEncoders,
    encoders: Encoders,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    async def tick() -> None:
        calls.append(1)
        raise ValueError("a defect")

    monkeypatch.setattr(encoders, "tick", tick)
    async with following(encoders):
        await until(lambda: len(calls) > 3)
        assert caplog.text.count("encoders cannot be kept in step: ValueError: a defect") == 1
        monkeypatch.undo()


async def test_what_the_repository_forbids_is_a_failure_of_that_version(
    triton: FakeEncoders, encoders: Encoders, model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (model_folder.parent / "user_encoder").write_text("in the way")
    await ticks(encoders, 3)
    assert triton.encoder_loads == []
    assert caplog.text.count("version 1 is without its encoder for now") == 1
