"""What a failed start means, before Triton was ever ready and after. No Triton runs here."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from features.settings import Settings
from inference import supervisor
from inference.proof import Proof

PROOF = Proof("recommender", 1, 16)
NO_PROCESS = OSError(errno.EAGAIN, "Resource temporarily unavailable")


class FakeServer:
    """A Triton that is gone as soon as it has been proven, or, if told so, cannot be started at all."""

    complaint = "it did not say why"

    def __init__(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def stop(self) -> int:
        return 0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A repository with a configuration, and nothing to start; pauses too short to notice."""

    async def prove(_: Settings) -> Proof:
        return PROOF

    async def load_nothing(_: Settings) -> None:
        pass

    async def watch(_: Settings) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(supervisor, "check_ports", lambda _: None)
    monkeypatch.setattr(supervisor, "find_triton", lambda _: None)
    monkeypatch.setattr(supervisor, "write_backend_folder", lambda _, folder: folder)
    monkeypatch.setattr(supervisor, "load_stable", prove)
    monkeypatch.setattr(supervisor, "load_others", load_nothing)
    monkeypatch.setattr(supervisor, "watch_stable", watch)
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.001)
    settings = Settings(state_dir=tmp_path, model_repository=tmp_path / "repository")
    (settings.model_repository / settings.model_name).mkdir(parents=True)
    (settings.model_repository / settings.model_name / "config.pbtxt").touch()
    return settings


async def run(settings: Settings, starts: Sequence[OSError | None], monkeypatch: pytest.MonkeyPatch) -> int:
    """Supervise through `starts`, None for one that succeeds; how often Triton was announced."""
    stop = asyncio.Event()
    running: list[FakeServer] = []
    plan = iter(starts)
    announced = 0

    class Starter:
        @staticmethod
        async def start(*_: object, attempt: int) -> FakeServer:
            if (error := next(plan)) is not None:
                raise error
            running.append(FakeServer())
            return running[-1]

    def announce(_: Proof) -> None:
        nonlocal announced
        announced += 1
        if announced == starts.count(None):
            stop.set()
        else:
            running[-1].ended.set_result(137)

    monkeypatch.setattr(supervisor, "TritonServer", Starter)
    async with asyncio.timeout(10):
        await supervisor.supervise(settings, stop, announce)
    return announced


async def test_a_start_that_the_machine_refuses_is_tried_again_once_triton_was_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await run(settings, [None, NO_PROCESS, NO_PROCESS, None], monkeypatch) == 2


async def test_a_first_start_that_the_machine_refuses_is_an_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="temporarily unavailable"):
        await run(settings, [NO_PROCESS, None], monkeypatch)
