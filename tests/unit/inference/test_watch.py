"""A stable version whose process dies is noticed, though Triton calls it ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from features.settings import Settings
from inference import watch
from inference.errors import VersionDied
from tests.unit.inference.fake_triton import FakeTriton, serving


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> FakeTriton:
    """Both versions are ready."""
    monkeypatch.setattr(watch, "EVERY_S", 0.001)
    triton = FakeTriton()
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
    (folder / "config.pbtxt").write_text("version_policy { specific { versions: [2, 1] } }")
    async with serving(triton) as address:
        yield Settings(state_dir=tmp_path, model_repository=tmp_path, triton_address=address)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_stable_version_whose_process_is_gone_is_noticed(
    triton: FakeTriton, settings: Settings
) -> None:
    triton.dead = {2}
    with pytest.raises(VersionDied, match="recommender version 2 has died"):
        await watch.watch_stable(settings)


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
