"""The encoder in one real Triton: in step with the recommender, at a lower priority, and no trouble to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from inference.control import ModelControl, open_control
from inference.encoders import Encoders
from inference.environment import Interpreter
from inference.golden import difference, read_golden
from inference.model_config import ENCODER_NICE
from inference.proof import infer, open_channel, prove_version
from inference.signature import ENCODE_INPUTS
from rollout.configuration import set_versions
from rollout.publish import publish
from tests.integration.conftest import Launcher, launch, settings_below
from tests.integration.program import READY_S
from tests.integration.tiny_variant import Variant, write_exports

pytestmark = pytest.mark.triton

STABLE, RANKING, WITHOUT = 1, 2, 3


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory, interpreter: Interpreter) -> Iterator[Launcher]:
    """Serves version 1, of an earlier release; 2 takes all inputs, and 3 has no signature for an encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    exports = {
        folder / "stable": Variant(),
        folder / "ranking": Variant(attributes=("age", "country"), consumes=("PURCHASE",)),
    }
    write_exports(exports)
    settings = settings_below(folder)
    for name in ("stable", "ranking", "stable"):
        publish(settings, interpreter, folder / name)
    graph = settings.model_repository / "recommender" / str(WITHOUT) / "model.savedmodel" / "saved_model.pb"
    key = b"\x0a\x06encode"  # of the map of signatures
    assert graph.read_bytes().count(key) == 1
    graph.write_bytes(graph.read_bytes().replace(key, b"\x0a\x06decode"))
    launcher = launch(settings)
    try:
        launcher.wait_ready()
        yield launcher
    finally:
        assert launcher.stop() == 0, launcher.program.text


class Running:
    """Both models in the running Triton, and what keeps the one in step with the other."""

    def __init__(self, triton: Launcher, recommender: ModelControl, encoders: Encoders) -> None:
        self.triton, self.recommender, self.encoders = triton, recommender, encoders
        self.folder = triton.settings.model_repository / "recommender"

    async def serve(self, *versions: int) -> None:
        """As a rollout does."""
        set_versions(self.folder, versions)
        await self.recommender.load()

    async def prove(self, version: int) -> None:
        """The recommender answers."""
        await prove_version(self.recommender.stub, "recommender", self.folder.parent, version)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when it holds."""
        try:
            async with asyncio.timeout(READY_S):
                while not condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{self.encoders.proven}, {self.processes()}\n{self.triton.program.text}")

    def processes(self) -> dict[tuple[str, int], psutil.Process]:
        """Model and version → the process that serves it."""
        found = {}
        for process in psutil.Process(self.triton.server_pid).children():
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # ended, or not yet reaped: without a command line
                place = Path(process.cmdline()[1]) if len(process.cmdline()) > 1 else Path()
                if place.name == "model.savedmodel":
                    found[place.parent.parent.name, int(place.parent.name)] = process
        return found


@pytest.fixture
async def running(triton: Launcher) -> AsyncIterator[Running]:
    settings = triton.settings
    async with open_channel(settings.triton_target) as channel:
        running = Running(triton, open_control(settings, channel), Encoders(settings, channel))
        following = asyncio.create_task(running.encoders.follow())
        try:
            await running.until(lambda: running.encoders.proven == {STABLE})
            yield running
            assert not following.done()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def priorities(process: psutil.Process) -> set[int]:
    """The "nice" values of its threads."""
    found = set()
    for stat in Path(f"/proc/{process.pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # that thread has ended
            found.add(int(stat.read_text().rpartition(")")[2].split()[16]))
    return found


async def test_it_answers_the_vectors_of_the_golden_requests(running: Running) -> None:
    golden = read_golden(running.folder / str(STABLE) / "golden.npz")
    inputs = {name: golden.inputs[name] for name in ENCODE_INPUTS if name in golden.inputs}
    answers = await infer(running.recommender.stub, "user_encoder", STABLE, inputs, ("user_vector",))
    encoded = golden.inputs["user_vector_fresh"][:, 0] == 0
    assert encoded.any()
    expected = golden.outputs["user_vector"][encoded]
    np.testing.assert_allclose(answers["user_vector"][encoded], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() > 0.1


async def test_it_has_a_lower_priority_and_the_recommender_the_usual_one(running: Running) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    processes = running.processes()
    # The thread that loaded it may take a moment to be gone: it has the lowest priority.
    await running.until(
        lambda: priorities(processes["user_encoder", STABLE]) == {min(19, usual + ENCODER_NICE)}
    )
    assert priorities(processes["recommender", STABLE]) == {usual}


async def test_versions_come_and_go_with_the_recommenders_and_those_that_stay_are_left_alone(
    running: Running,
) -> None:
    before = running.processes()
    await running.serve(STABLE, RANKING)
    await running.until(lambda: running.encoders.proven == {STABLE, RANKING})
    await running.serve(STABLE)
    await running.until(lambda: running.encoders.proven == {STABLE})
    await running.until(lambda: running.processes() == before)
    await running.prove(STABLE)


async def test_a_version_without_the_signature_has_no_encoder_and_the_others_keep_theirs(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = running.processes()["user_encoder", STABLE]
    await running.serve(STABLE, WITHOUT)
    await running.until(lambda: f"version {WITHOUT} has no encoder" in caplog.text)
    await running.prove(WITHOUT)
    await running.serve(STABLE)
    await running.prove(STABLE)
    assert running.processes()["user_encoder", STABLE] == encoder
    assert caplog.text.count(f"version {WITHOUT} has no encoder") == 1


async def test_a_killed_encoder_comes_back_and_the_recommender_misses_no_call(running: Running) -> None:
    golden = read_golden(running.folder / str(STABLE) / "golden.npz")
    calls = 0

    async def call() -> None:
        nonlocal calls
        while True:
            outputs = ("item_keys", "scores")
            answers = await infer(running.recommender.stub, "recommender", STABLE, golden.inputs, outputs)
            assert difference(golden, answers) is None
            calls += 1
            await asyncio.sleep(0.01)

    calling = asyncio.create_task(call())
    before = running.processes()
    before["user_encoder", STABLE].kill()
    await running.until(lambda: running.encoders.proven == set())
    served = calls
    await running.until(lambda: running.encoders.proven == {STABLE})
    await running.until(lambda: calls > served)
    assert not calling.done()
    calling.cancel()
    after = running.processes()
    assert after["recommender", STABLE] == before["recommender", STABLE]
    assert after["user_encoder", STABLE] != before["user_encoder", STABLE]


async def test_after_a_restart_of_triton_it_is_back(running: Running) -> None:
    before = running.triton.times_ready
    os.kill(running.triton.server_pid, signal.SIGKILL)
    await running.until(lambda: running.encoders.proven == set())
    await running.until(lambda: running.triton.times_ready == before + 1)
    await running.until(lambda: running.encoders.proven == {STABLE})
