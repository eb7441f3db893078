"""Keeping a worker: a real process that does as the test tells it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from features.settings import Settings
from gateway import supervisor
from gateway.supervisor import _keep_worker
from tests.ports import free_ports

# Stands in the place of the gateway: notes that it was started, then does what the plan says for this start.
WORKER = """
from pathlib import Path
import time
with Path("starts").open("a") as starts:
    starts.write("x")
plan = Path("plan").read_text().split()
todo = plan[min(len(Path("starts").read_text()), len(plan)) - 1]
if todo == "stay":
    time.sleep(600)
raise SystemExit(int(todo))
"""


class Kept:
    """A keeper at work, and what became of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stop = asyncio.Event()
        self.keeper: asyncio.Task[int] | None = None

    def begin(self, *plan: str) -> None:
        (self._folder / "plan").write_text(" ".join(plan))
        self.keeper = asyncio.create_task(_keep_worker(Settings(drain_s=10), self.stop))

    @property
    def starts(self) -> int:
        file = self._folder / "starts"
        return len(file.read_text()) if file.exists() else 0

    async def started(self, times: int) -> None:
        async with asyncio.timeout(60):
            while self.starts < times:
                await asyncio.sleep(0.01)

    async def status(self) -> int:
        assert self.keeper is not None
        return await asyncio.wait_for(self.keeper, 60)


@pytest.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    (tmp_path / "gateway").mkdir()
    # A package with this file is taken before our own, also where PYTHONPATH names that.
    (tmp_path / "gateway" / "__init__.py").touch()
    (tmp_path / "gateway" / "__main__.py").write_text(WORKER)
    monkeypatch.chdir(tmp_path)
    kept = Kept(tmp_path)
    yield kept
    kept.stop.set()
    if kept.keeper is not None:
        await asyncio.wait([kept.keeper])


async def test_told_to_end_while_it_waits_to_replace_a_worker_it_starts_none_and_ends_with_0(
    kept: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is also how long a worker must live to be replaced at once: longer than any start of Python.
    monkeypatch.setattr(supervisor, "_RESTART_PAUSE_S", 50.0)
    kept.begin("1")
    async with asyncio.timeout(60):
        while "is replaced" not in caplog.text:
            await asyncio.sleep(0.01)
    kept.stop.set()
    assert await kept.status() == 0
    assert kept.starts == 1


async def test_a_worker_told_to_end_while_it_still_starts_is_no_failure(kept: Kept) -> None:
    kept.begin("stay")
    await kept.started(1)
    kept.stop.set()
    assert await kept.status() == 0


async def test_a_worker_that_was_told_wrongly_at_first_is_not_started_again(kept: Kept) -> None:
    kept.begin("2", "stay")
    assert await kept.status() == 2
    assert kept.starts == 1


async def test_a_restarted_worker_that_ends_with_2_is_replaced_like_any_other(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_RESTART_PAUSE_S", 0.01)
    kept.begin("1", "2", "stay")
    await kept.started(3)
    kept.stop.set()
    assert await kept.status() == 0


async def test_a_gateway_that_cannot_listen_leaves_no_worker_behind(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan").write_text("stay")
    grpc_port, http_port = free_ports(2)
    settings = Settings(grpc_port=grpc_port, http_port=http_port, state_dir=tmp_path / "var", workers=2)
    # Taken between the check and the start.
    monkeypatch.setattr(supervisor, "check_ports", lambda settings: None)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "put back afterwards")
    before = set(psutil.Process().children())  # servers that other tests share
    with socket.create_server(("127.0.0.1", http_port)), pytest.raises(OSError, match="in use"):
        await asyncio.wait_for(supervisor.supervise(settings), 60)
    assert set(psutil.Process().children()) <= before


async def test_a_worker_that_cannot_be_started_is_tried_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = asyncio.create_subprocess_exec, [OSError(24, "Too many open files")]

    async def starting(*words: str, **how: int) -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop()
        return await start(*words, **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    kept.begin("stay")
    await kept.started(1)
    assert not refusals
    kept.stop.set()
    assert await kept.status() == 0
