"""The real tritonserver with our `tensorflow` backend: answers, errors, restarts, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from features.settings import Settings
from inference.access import ADMIN_KEY, admin_token
from inference.golden import Golden, difference, read_golden
from inference.proof import infer, open_channel
from inference.readiness import prove_served
from tests.integration.conftest import Launcher, launch, settings_below, wait_until

pytestmark = pytest.mark.triton

ALL = ("item_keys", "reason_keys", "scores", "user_vector")


def golden_of(settings: Settings) -> Golden:
    return read_golden(settings.model_repository / settings.model_name / "1" / "golden.npz")


@contextlib.asynccontextmanager
async def stub_of(settings: Settings) -> AsyncIterator[Any]:
    async with open_channel(settings.triton_target) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def left_of(launcher_pid: int, server_pid: int) -> list[str]:
    """Processes of the server's group and regions of the launcher that still exist."""
    left = [region.name for region in Path("/dev/shm").glob(f"riptide_*_{launcher_pid}_*")]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == server_pid and fields[0] != "Z":
                left.append(f"process {process.name}")
    return left


async def test_every_golden_request_gets_its_golden_answer(triton: Launcher) -> None:
    golden = golden_of(triton.settings)
    async with stub_of(triton.settings) as stub:
        answers = await infer(stub, "recommender", 1, golden.inputs, ALL)
    assert difference(golden, answers) is None


async def test_an_answer_holds_the_outputs_that_were_asked_for_and_no_other(triton: Launcher) -> None:
    golden = golden_of(triton.settings)
    async with stub_of(triton.settings) as stub:
        answers = await infer(stub, "recommender", 1, golden.inputs, ("scores",))
    assert answers.keys() == {"scores"}


async def test_requests_that_share_a_batch_get_their_own_rows_and_outputs(triton: Launcher) -> None:
    golden = golden_of(triton.settings)
    async with stub_of(triton.settings) as stub:

        async def one(row: int) -> str | None:
            part = Golden(
                {name: array[row : row + 1] for name, array in golden.inputs.items()},
                {name: array[row : row + 1] for name, array in golden.outputs.items()},
            )
            names = ALL if row % 2 else ("item_keys", "scores")
            answers = await infer(stub, "recommender", 1, part.inputs, names)
            assert answers.keys() == set(names)
            return difference(part, answers)

        assert await asyncio.gather(*(one(row % golden.rows) for row in range(64))) == [None] * 64


async def test_a_wrong_request_fails_alone(triton: Launcher) -> None:
    golden = golden_of(triton.settings)
    narrow = dict(golden.inputs) | {"history_keys": golden.inputs["history_keys"][:, 1:]}
    uneven = dict(golden.inputs) | {"history_keys": golden.inputs["history_keys"][1:]}
    async with stub_of(triton.settings) as stub:
        calls = [
            infer(stub, "recommender", 1, narrow if n == 3 else uneven if n == 5 else golden.inputs, ALL)
            for n in range(8)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    for n, answer in enumerate(answers):
        if n in (3, 5):
            assert isinstance(answer, grpc.aio.AioRpcError)
            assert answer.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
        else:
            assert not isinstance(answer, BaseException), answer
            assert difference(golden, answer) is None


async def test_a_version_that_is_not_there_is_unavailable(triton: Launcher) -> None:
    async with stub_of(triton.settings) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(stub, "recommender", 7, golden_of(triton.settings).inputs, ALL)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)


async def test_managing_models_needs_the_token(triton: Launcher) -> None:
    request = service_pb2.RepositoryIndexRequest()
    token = ((f"triton-grpc-protocol-{ADMIN_KEY}", admin_token(triton.settings)),)
    async with stub_of(triton.settings) as stub:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.RepositoryIndex(request, timeout=10)
        index = await stub.RepositoryIndex(request, metadata=token, timeout=10)
    assert "recommender" in {model.name for model in index.models}


async def test_a_triton_started_elsewhere_is_proven_by_its_address(triton: Launcher) -> None:
    elsewhere = triton.settings.model_copy(update={"triton_address": triton.settings.triton_target})
    proof = await prove_served(elsewhere)
    assert (proof.version, proof.requests) == (1, 16)


def test_a_port_in_use_is_named_before_anything_starts(published: Settings, tmp_path: Path) -> None:
    settings = settings_below(tmp_path).model_copy(update={"model_repository": published.model_repository})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.triton_grpc_port))
        taken.listen()
        launcher = launch(settings.model_copy(update={"model_repository": published.model_repository}))
        status = launcher.process.wait(60)
    said = launcher.output.read_text()
    assert status == 2
    assert f"port {settings.triton_grpc_port} on 127.0.0.1 cannot be used (address already in use)" in said
    assert "RIPTIDE_TRITON_GRPC_PORT" in said
    assert not (settings.state_dir / "triton").exists()


def test_nothing_published_is_said_in_one_sentence(tmp_path: Path) -> None:
    launcher = launch(settings_below(tmp_path))
    assert launcher.process.wait(60) == 2
    assert "publish a version first" in launcher.output.read_text()


def test_a_killed_triton_is_restarted_and_a_killed_launcher_leaves_nothing(
    published: Settings, tmp_path: Path
) -> None:
    settings = settings_below(tmp_path).model_copy(update={"model_repository": published.model_repository})
    launcher = launch(settings)
    try:
        launcher.wait_ready()
        killed = launcher.server_pid
        os.kill(killed, signal.SIGKILL)
        launcher.wait_ready(times=2)
        server = launcher.server_pid
        assert server != killed
        assert [name for name in left_of(launcher.process.pid, killed) if name.startswith("process")] == []
        assert left_of(launcher.process.pid, server) != []
    finally:
        launcher.process.kill()
        launcher.process.wait()
    wait_until(lambda: not left_of(launcher.process.pid, server))
