"""What callers see when parts fail: an answer, in time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.e2e.conftest import Deployment
from tests.ports import free_ports

DEADLINE_S = 1.0
FULL_AGAIN_S = 30.0


async def _call_until(
    gateway: RecommenderStub, done: asyncio.Event, answers: list[tuple[float, int]], failures: list[str]
) -> None:
    """Calls one after the other; notes when each was answered and how it was degraded."""
    user = 0
    while not done.is_set():
        user = user % 900 + 1
        try:
            response = await gateway.Recommend(
                pb.RecommendRequest(user_id=str(user), limit=10), timeout=DEADLINE_S
            )
        except grpc.aio.AioRpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
        else:
            answers.append((time.monotonic(), response.degraded))
            assert len(response.items) == 10


async def _until_full(gateway: RecommenderStub) -> None:
    async with asyncio.timeout(FULL_AGAIN_S):
        while True:
            response = await gateway.Recommend(
                pb.RecommendRequest(user_id="196", limit=10), timeout=DEADLINE_S
            )
            if response.degraded == pb.DEGRADED_REASON_UNSPECIFIED:
                return
            await asyncio.sleep(0.05)


async def test_triton_killed_under_load_fails_no_call_and_comes_back(
    deployment: Deployment, gateway: RecommenderStub
) -> None:
    await _until_full(gateway)
    done = asyncio.Event()
    answers: list[tuple[float, int]] = []
    failures: list[str] = []
    async with asyncio.TaskGroup() as callers:
        for _ in range(16):
            callers.create_task(_call_until(gateway, done, answers, failures))
        while len(answers) < 200:
            await asyncio.sleep(0.01)
        victim = deployment.triton
        victim.kill()
        killed = time.monotonic()
        async with asyncio.timeout(FULL_AGAIN_S):
            while not any(when > killed and degraded for when, degraded in answers):
                await asyncio.sleep(0.01)
        await _until_full(gateway)
        done.set()
    assert failures == []
    degraded = Counter(reason for _, reason in answers)
    assert set(degraded) == {pb.DEGRADED_REASON_UNSPECIFIED, pb.DEGRADED_REASON_MODEL_UNAVAILABLE}
    assert deployment.triton.pid != victim.pid


async def test_a_triton_that_hangs_costs_callers_a_fallback_page_not_their_deadline(
    deployment: Deployment, gateway: RecommenderStub
) -> None:
    await _until_full(gateway)
    full = await gateway.Recommend(pb.RecommendRequest(user_id="196", limit=10), timeout=DEADLINE_S)
    hanging = deployment.triton
    hanging.suspend()
    try:
        response = await gateway.Recommend(pb.RecommendRequest(user_id="196", limit=10), timeout=DEADLINE_S)
    finally:
        hanging.resume()
    assert response.degraded == pb.DEGRADED_REASON_MODEL_UNAVAILABLE
    # The user's last page, kept with the cached vector.
    assert [item.item_id for item in response.items] == [item.item_id for item in full.items]
    await _until_full(gateway)


@pytest.fixture
def second_gateway(deployment: Deployment) -> Iterator[tuple[psutil.Popen, str, int]]:
    """A gateway of its own with two workers on the same store and Triton, patient with a slow model."""
    port, http_port = free_ports(2)
    env = deployment.env | {
        "RIPTIDE_GRPC_PORT": str(port),
        "RIPTIDE_HTTP_PORT": str(http_port),
        "RIPTIDE_MODEL_TIMEOUT_MS": "4000",
    }
    process = psutil.Popen(
        [sys.executable, "-m", "gateway", "--workers", "2"], env=env, stderr=subprocess.PIPE
    )
    yield process, f"127.0.0.1:{port}", http_port
    if process.poll() is None:
        process.kill()
    process.communicate()


async def _serving(target: str) -> grpc.aio.Channel:
    channel = grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
    await asyncio.wait_for(channel.channel_ready(), 30)
    return channel


async def test_sigterm_lets_calls_in_flight_finish_and_ends_with_status_0(
    deployment: Deployment, gateway: RecommenderStub, second_gateway: tuple[psutil.Popen, str, int]
) -> None:
    await _until_full(gateway)
    process, target, _ = second_gateway
    channels = [await _serving(target) for _ in range(4)]
    stubs = [RecommenderStub(channel) for channel in channels]
    for stub in stubs:
        await _until_full(stub)
    hanging = deployment.triton
    hanging.suspend()
    try:
        calls = [
            asyncio.ensure_future(
                stub.Recommend(pb.RecommendRequest(user_id=str(user), limit=10), timeout=10)
            )
            for user in range(1, 9)
            for stub in stubs
        ]
        # Nothing is answered while Triton hangs, so after this all of them are in the gateway's hands.
        done, _ = await asyncio.wait(calls, timeout=1)
        assert not done
        process.send_signal(signal.SIGTERM)
        # It waits for them: neither gone nor answered yet.
        with pytest.raises(psutil.TimeoutExpired):
            await asyncio.to_thread(process.wait, 0.5)
    finally:
        hanging.resume()
    answers = await asyncio.gather(*calls)
    assert all(len(answer.items) == 10 for answer in answers)
    assert any(answer.degraded == pb.DEGRADED_REASON_UNSPECIFIED for answer in answers)
    assert await asyncio.to_thread(process.wait, 30) == 0
    for channel in channels:
        await channel.close()


async def test_both_workers_serve_and_a_killed_one_is_replaced(
    second_gateway: tuple[psutil.Popen, str, int],
) -> None:
    process, target, http_port = second_gateway
    await (await _serving(target)).close()

    async def workers() -> set[int]:
        async with asyncio.timeout(30):
            while len(children := {child.pid for child in process.children()}) < 2:
                await asyncio.sleep(0.05)
        return children

    before = await workers()
    os.kill(min(before), signal.SIGKILL)
    async with asyncio.timeout(30):
        while (await workers()) == before:
            await asyncio.sleep(0.05)
    channel = await _serving(target)
    response = await RecommenderStub(channel).Recommend(pb.RecommendRequest(user_id="1", limit=5), timeout=5)
    assert len(response.items) == 5
    await channel.close()
    said = await asyncio.to_thread(_exposed, http_port)
    assert "riptide_worker_restarts_total 1.0" in said.splitlines()


def _exposed(http_port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _interrupting(process: int) -> list[int] | None:
    """Threads of a worker, beside the first, that may interrupt another; None if it is not at work yet."""
    threads = {int(task.name) for task in Path(f"/proc/{process}/task").iterdir()} - {process}
    try:
        usual = [thread for thread in threads if os.sched_getscheduler(thread) == os.SCHED_OTHER]
    except ProcessLookupError:  # one has ended since
        return None
    return usual if threads else None


async def test_grpcs_threads_do_not_interrupt_the_event_loop(
    second_gateway: tuple[psutil.Popen, str, int],
) -> None:
    """But for those that the event loop starts itself later on: Python's own for blocking work."""
    process, target, _ = second_gateway
    await (await _serving(target)).close()
    async with asyncio.timeout(30):
        while True:
            workers = [child.pid for child in process.children()]
            if len(workers) == 2 and [_interrupting(worker) for worker in workers] == [[], []]:
                break
            await asyncio.sleep(0.05)
    assert {os.sched_getscheduler(worker) for worker in workers} == {os.SCHED_OTHER}


def test_a_port_in_use_is_said_in_one_line_with_its_setting(deployment: Deployment) -> None:
    done = deployment.run("gateway")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"port {deployment.port('grpc')} on 127.0.0.1 cannot be used")
    assert "RIPTIDE_GRPC_PORT" in line
