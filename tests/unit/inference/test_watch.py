"""A stable version whose process dies or hangs is noticed, though Triton calls it ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from features.settings import Settings
from inference import watch
from inference.errors import VersionDied
from inference.proof import open_channel
from tests.unit.inference.fake_triton import FakeTriton, serving


class HangingTriton(FakeTriton):
    """Does not answer those of its inferences, from 1, that `hangs` says it should not."""

    hangs: Callable[[int], bool] = staticmethod(lambda _: False)

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if self.hangs(len(self.asked) + 1):
            self.asked.append((int(request.model_version), {}))
            await asyncio.Event().wait()
        return await super().ModelInfer(request, context)


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> HangingTriton:
    """Both versions are ready."""
    monkeypatch.setattr(watch, "EVERY_S", 0.001)
    triton = HangingTriton()
    triton.ready = [1, 2]
    return triton


@pytest.fixture
async def settings(triton: FakeTriton, tmp_path: Path) -> AsyncIterator[Settings]:
    """Version 2 is listed first."""
    folder = tmp_path / "recommender"
    golden = {
        "in:user_vector_fresh": np.zeros((3, 1), np.int32),
        "out:item_keys": np.ones((3, 1), np.int64),
        "out:scores": np.ones((3, 1), np.float32),
        "out:reason_keys": np.ones((3, 1), np.int64),
        "out:user_vector": np.ones((3, 2), np.float32),
    }
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
        np.savez(folder / version / "golden.npz", **golden)  # type: ignore[arg-type]  # numpy's own flag
    list_versions(folder, "2, 1")
    async with serving(triton) as address:
        yield Settings(state_dir=tmp_path, model_repository=tmp_path, triton_address=address)


def list_versions(folder: Path, versions: str) -> None:
    (folder / "config.pbtxt").write_text(f"version_policy {{ specific {{ versions: [{versions}] }} }}")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for an answer from this process."""
    monkeypatch.setattr(watch, "CALL_TIMEOUT_S", 0.5)


async def watched(settings: Settings) -> None:
    async with asyncio.timeout(30):
        await watch.watch_stable(settings)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_stable_version_whose_process_is_gone_is_noticed(
    triton: FakeTriton, settings: Settings
) -> None:
    triton.dead = {2}
    with pytest.raises(VersionDied, match="recommender version 2 has died"):
        await watched(settings)


@pytest.mark.parametrize(("ready", "dead"), [([1, 2], {1}), ([1], set[int]())], ids=["another", "unloaded"])
async def test_a_version_that_is_unloaded_or_another_that_dies_is_no_such_death(
    triton: FakeTriton, settings: Settings, ready: list[int], dead: set[int]
) -> None:
    triton.ready, triton.dead = ready, dead
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: len(triton.asked) > 3 or watching.done())
    assert not watching.done()
    assert {version for version, _ in triton.asked} == {2}
    watching.cancel()


@pytest.mark.usefixtures("impatient")
async def test_a_stable_version_that_hangs_is_noticed_at_its_second_late_call(
    triton: HangingTriton, settings: Settings
) -> None:
    triton.hangs = lambda nth: nth > 3
    with pytest.raises(VersionDied, match=r"recommender version 2 has not answered for [1-9]\d* s"):
        await watched(settings)
    assert len(triton.asked) == 5


@pytest.mark.usefixtures("impatient")
async def test_one_that_may_be_late_more_often_is(triton: HangingTriton, settings: Settings) -> None:
    triton.hangs = lambda _: True
    watched = watch.Watched(2, {}, ("user_vector",), patience=3)
    async with open_channel(settings.triton_target) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(2):
            await watch.ask(stub, "recommender", watched)
        with pytest.raises(VersionDied, match="has not answered"):
            await watch.ask(stub, "recommender", watched)


@pytest.mark.usefixtures("impatient")
async def test_late_calls_with_answers_in_between_are_no_death(
    triton: HangingTriton, settings: Settings
) -> None:
    triton.hangs = lambda nth: nth % 2 == 1
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: len(triton.asked) > 5 or watching.done())
    assert not watching.done()
    watching.cancel()


@pytest.mark.usefixtures("impatient")
async def test_a_channel_that_gives_up_connecting_between_late_calls_does_not_hide_the_hang(
    triton: HangingTriton, settings: Settings
) -> None:
    triton.hangs = lambda nth: nth % 2 == 1
    triton.ready = []  # which gets the code that the channel has for no connection
    with pytest.raises(VersionDied, match="has not answered"):
        await watched(settings)


@pytest.mark.usefixtures("impatient")
async def test_lateness_of_one_stable_version_is_not_held_against_the_next(
    triton: HangingTriton, settings: Settings
) -> None:
    def hangs(nth: int) -> bool:
        list_versions(settings.model_repository / "recommender", "1, 2")
        return nth <= 2

    triton.hangs = hangs
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: len(triton.asked) > 3 or watching.done())
    assert not watching.done()
    assert [version for version, _ in triton.asked[:4]] == [2, 1, 1, 1]
    watching.cancel()


async def test_golden_requests_are_read_once(
    triton: HangingTriton, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: triton.asked != [])
    (settings.model_repository / "recommender" / "2" / "golden.npz").unlink()
    asked = len(triton.asked)
    await until(lambda: len(triton.asked) > asked + 3 or "cannot be read" in caplog.text)
    assert "cannot be read" not in caplog.text
    watching.cancel()


async def test_it_goes_on_when_golden_requests_can_be_read_again(
    triton: FakeTriton, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    golden = settings.model_repository / "recommender" / "2" / "golden.npz"
    hidden = golden.rename(golden.with_suffix(".hidden"))
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: "golden.npz: cannot be read" in caplog.text or watching.done())
    hidden.rename(golden)
    triton.dead = {2}
    with pytest.raises(VersionDied):
        await watching


async def test_what_is_asked_costs_no_encoding(triton: FakeTriton, settings: Settings) -> None:
    watching = asyncio.create_task(watch.watch_stable(settings))
    await until(lambda: triton.asked != [])
    watching.cancel()
    _, inputs = triton.asked[0]
    assert inputs["user_vector_fresh"].tolist() == [[1]]
