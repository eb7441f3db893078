"""Versions that come and go in one real Triton, and those that stay: what a rollout builds on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from inference.control import ModelControl, open_control
from inference.environment import Interpreter
from inference.errors import LoadFailed
from inference.proof import open_channel, prove_version
from rollout.configuration import set_versions
from rollout.publish import publish
from tests.integration.conftest import Launcher, launch, settings_below
from tests.integration.program import wait_until
from tests.integration.tiny_variant import Variant, write_exports

pytestmark = pytest.mark.triton

STABLE, WIDER, CORRUPT, HUGE = 1, 2, 3, 4


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, interpreter: Interpreter) -> Iterator[Launcher]:
    """A Triton that serves version 1; beside it 2 of other widths, 3 cut off and 4 of no machine's size."""
    folder = tmp_path_factory.mktemp("versions")
    exports = {
        folder / "stable": Variant(),
        folder / "wider": Variant(width=6, history=12, categories=5, answer=7),
        folder / "huge": Variant(defect="huge"),
    }
    write_exports(exports)
    settings = settings_below(folder)
    for name in ("stable", "wider", "stable", "stable"):
        publish(settings, interpreter, folder / name)
    model_folder = settings.model_repository / settings.model_name
    (data,) = (model_folder / str(CORRUPT) / "model.savedmodel" / "variables").glob("*.data*")
    data.write_bytes(data.read_bytes()[:-64])
    savedmodel = model_folder / str(HUGE) / "model.savedmodel"
    shutil.rmtree(savedmodel)
    shutil.copytree(folder / "huge" / "model.savedmodel", savedmodel)
    launcher = launch(settings)
    try:
        launcher.wait_ready()
        yield launcher
    finally:
        assert launcher.stop() == 0, launcher.program.text


def model_folder_of(triton: Launcher) -> Path:
    return triton.settings.model_repository / triton.settings.model_name


def stubs(triton: Launcher) -> dict[int, psutil.Process]:
    """Version → the process that serves it."""
    found = {}
    for process in psutil.Process(triton.server_pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            place = Path(process.cmdline()[1]) if len(process.cmdline()) > 1 else Path()
            if place.name == "model.savedmodel":
                found[int(place.parent.name)] = process
    return found


@contextlib.asynccontextmanager
async def control_of(triton: Launcher) -> AsyncIterator[ModelControl]:
    async with open_channel(triton.settings.triton_target) as channel:
        yield open_control(triton.settings, channel)


async def prove(control: ModelControl, triton: Launcher, version: int) -> None:
    await prove_version(control.stub, "recommender", triton.settings.model_repository, version)


async def test_a_version_of_other_widths_comes_and_goes_and_the_stable_one_is_left_alone(
    triton: Launcher,
) -> None:
    before = stubs(triton)[STABLE]
    async with control_of(triton) as control:
        set_versions(model_folder_of(triton), [STABLE, WIDER])
        await control.load()
        await prove(control, triton, STABLE)
        await prove(control, triton, WIDER)
        candidate = stubs(triton)[WIDER]
        set_versions(model_folder_of(triton), [STABLE])
        await control.load()
        await prove(control, triton, STABLE)
        wait_until(lambda: not candidate.is_running())
        assert (await control.states())[WIDER] == ("UNAVAILABLE", "unloaded")
    assert stubs(triton) == {STABLE: before}


def priorities(process: psutil.Process) -> set[int]:
    """The "nice" values of its threads."""
    found = set()
    for stat in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # that thread has ended
            found.add(int(stat.read_text().rpartition(")")[2].split()[16]))
    return found


async def test_a_version_that_came_in_the_background_serves_at_the_usual_priority(triton: Launcher) -> None:
    async with control_of(triton) as control:
        await control.load([STABLE, WIDER])
        usual = {os.getpriority(os.PRIO_PROCESS, 0)}
        # The thread that loaded it may take a moment to be gone: it has the lowest priority.
        wait_until(lambda: priorities(stubs(triton)[WIDER]) == usual)
        await control.load([STABLE])


@pytest.mark.parametrize(
    ("version", "reason"),
    [(CORRUPT, "Read less bytes than requested"), (HUGE, "OOM when allocating tensor")],
)
async def test_a_version_that_cannot_be_loaded_fails_alone(
    triton: Launcher, version: int, reason: str
) -> None:
    before = stubs(triton)[STABLE]
    async with control_of(triton) as control:
        with pytest.raises(LoadFailed, match=f"version {version} .*{reason}") as caught:
            await control.load([STABLE, version])
        assert "\n" not in str(caught.value)
        assert (await control.states())[version][0] == "UNAVAILABLE"
        await prove(control, triton, STABLE)
    assert stubs(triton) == {STABLE: before}


async def test_a_load_that_failed_is_tried_again_though_no_file_has_changed(triton: Launcher) -> None:
    async with control_of(triton) as control:
        for _ in range(2):
            with pytest.raises(LoadFailed):
                await control.load([STABLE, CORRUPT])


async def test_a_broken_candidate_does_not_keep_the_stable_version_from_coming_back(triton: Launcher) -> None:
    set_versions(model_folder_of(triton), [STABLE, CORRUPT, WIDER])
    before = triton.times_ready
    os.kill(triton.server_pid, signal.SIGKILL)
    triton.wait_ready(before + 1)
    async with control_of(triton) as control:
        await prove(control, triton, STABLE)
        wait_until(lambda: WIDER in stubs(triton), lambda: triton.program.text)
        wait_until(lambda: f"version {CORRUPT} is listed, but" in triton.program.text)


async def test_a_stable_version_whose_process_is_killed_comes_back(triton: Launcher) -> None:
    killed = stubs(triton)[STABLE]
    before = triton.times_ready
    killed.kill()
    triton.wait_ready(before + 1)
    async with control_of(triton) as control:
        await prove(control, triton, STABLE)
    assert stubs(triton)[STABLE].pid != killed.pid
    assert "the process of recommender version 1 has died" in triton.program.text
