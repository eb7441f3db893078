"""A Triton is ready when its stable version is, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from features.settings import Settings
from inference import readiness
from inference.errors import LoadFailed, ModelNotReady, NothingPublished, ProofFailed
from inference.proof import Proof
from inference.readiness import load_others, load_stable, prove_served
from tests.ports import free_ports
from tests.unit.inference.fake_triton import TOKEN, FakeTriton, serving


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions whose golden requests were sent; version 4 answers them wrongly."""
    versions: list[int] = []

    async def prove(_stub: Any, model: str, _repository: Path, version: int) -> Proof:
        versions.append(version)
        if version == 4:
            raise ProofFailed("version 4 answers golden requests wrongly")
        return Proof(model, version, 16)

    monkeypatch.setattr(readiness, "prove_version", prove)
    return versions


def settings_of(tmp_path: Path, versions: list[int], address: str) -> Settings:
    """A repository that lists `versions`."""
    folder = tmp_path / "repository" / "recommender"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f"version_policy {{ specific {{ versions: {versions} }} }}")
    return Settings(
        state_dir=tmp_path,
        model_repository=folder.parent,
        triton_address=address,
        triton_admin_token=TOKEN,
        triton_ready_s=0.3,
    )


@asynccontextmanager
async def deployment(tmp_path: Path, triton: FakeTriton, versions: list[int]) -> AsyncIterator[Settings]:
    async with serving(triton) as address:
        yield settings_of(tmp_path, versions, address)


async def test_the_stable_version_is_loaded_and_proven_before_any_other(
    tmp_path: Path, proven: list[int]
) -> None:
    triton = FakeTriton(broken={3: "corrupt"})
    async with deployment(tmp_path, triton, [1, 3]) as settings:
        assert await load_stable(settings) == Proof("recommender", 1, 16)
    assert (triton.ready, proven) == ([1], [1])


async def test_a_broken_candidate_keeps_no_other_version_away(
    tmp_path: Path, proven: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    triton = FakeTriton(broken={3: "corrupt"})
    async with deployment(tmp_path, triton, [1, 3, 4, 2]) as settings:
        await load_stable(settings)
        await load_others(settings)
    assert triton.loads == [[1], [1, 3], [1, 4], [1, 4, 2]]
    assert triton.ready == [1, 4, 2]
    assert proven == [1, 4, 2]
    broken, wrong = (record.getMessage() for record in caplog.records)
    assert broken.startswith("version 3 ")
    assert broken.endswith("corrupt")
    assert wrong.startswith("version 4 ")
    assert wrong.endswith("wrongly")


async def test_a_version_that_a_rollout_has_loaded_meanwhile_stays(tmp_path: Path, proven: list[int]) -> None:
    triton = FakeTriton()
    async with deployment(tmp_path, triton, [1, 2, 5]) as settings:
        triton.ready = [1, 5]
        await load_others(settings)
    assert triton.loads == [[1, 2, 5], [1, 2, 5]]
    assert proven == [2, 5]


async def test_a_stable_version_that_cannot_be_loaded_is_an_error(tmp_path: Path, proven: list[int]) -> None:
    async with deployment(tmp_path, FakeTriton(broken={1: "corrupt"}), [1, 2]) as settings:
        with pytest.raises(LoadFailed, match=r"version 1 .*corrupt"):
            await load_stable(settings)
    assert proven == []


async def test_a_triton_that_never_answers_is_not_waited_for_longer_than_the_setting(
    tmp_path: Path, proven: list[int]
) -> None:
    settings = settings_of(tmp_path, [1], f"127.0.0.1:{free_ports(1)[0]}")
    for wait in (load_stable, prove_served):
        with pytest.raises(
            ModelNotReady, match=r"within 0.3 s: Triton does not answer.*RIPTIDE_TRITON_READY_S"
        ):
            await wait(settings)


async def test_in_a_triton_that_others_manage_nothing_is_loaded(
    tmp_path: Path, proven: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    triton = FakeTriton()
    triton.ready = [1, 4]
    async with deployment(tmp_path, triton, [1, 4]) as settings:
        assert (await prove_served(settings)).version == 1
    assert (triton.loads, proven) == ([], [1, 4])
    assert "version 4 answers golden requests wrongly" in caplog.text


async def test_why_others_triton_does_not_serve_the_stable_version_is_told_at_once(
    tmp_path: Path, proven: list[int]
) -> None:
    async with deployment(tmp_path, FakeTriton(broken={1: "corrupt"}), [1]) as settings:
        with pytest.raises(ModelNotReady, match=r"Triton does not serve recommender version 1: .*corrupt"):
            await prove_served(settings.model_copy(update={"triton_ready_s": 3600.0}))


async def test_where_nothing_is_listed_nothing_is_waited_for(tmp_path: Path) -> None:
    for wait in (load_stable, prove_served):
        with pytest.raises(NothingPublished, match="publish one first"):
            await wait(Settings(state_dir=tmp_path, model_repository=tmp_path))
