"""The operators' service over a real connection, on a repository on disk and a store in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.riptide.v1 import rollouts_pb2 as pb
from client.riptide.v1.rollouts_pb2_grpc import RolloutsServicer, RolloutsStub
from features.figures import Report, VersionFigures
from features.operator_token import TOKEN_METADATA, watching_token
from features.settings import Settings
from rollout import state
from rollout.heartbeat import Heartbeat, write_heartbeat
from rollout.operate import Operator
from rollout.records import Records
from rollout.service import Service, serve
from rollout.state import Phase
from tests.ports import free_ports
from tests.unit.fake_control import FakeControl
from tests.unit.rollout.published import write_version

TOKEN = "let me in"
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["Rollouts"].methods]


@dataclass
class Served:
    stub: Any
    operator: Operator
    records: Records
    control: FakeControl


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    model_folder = tmp_path / "recommender"
    for version in (1, 2):
        write_version(model_folder, version)
    (model_folder / "config.pbtxt").write_text('name: "r"\nversion_policy { specific { versions: 1 } }\n')
    control = FakeControl()
    records = Records(control, "recommender")
    operator = Operator(Settings(model_repository=tmp_path), records)
    [port] = free_ports(1)
    (tmp_path / "operator_token").write_text(TOKEN)
    server = serve(Service(operator, control, "recommender", tmp_path), f"127.0.0.1:{port}")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(RolloutsStub(channel), operator, records, control)
    await server.stop(0)


def call(token: str = TOKEN) -> dict[str, Any]:
    return {"metadata": ((TOKEN_METADATA, token),), "timeout": 10}


async def refused(awaitable: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("metadata", [(), ((TOKEN_METADATA, "guessed"),), ((TOKEN_METADATA, ""),)])
async def test_without_the_operators_token_nothing_is_told_and_nothing_is_done(
    served: Served, metadata: tuple[tuple[str, str], ...]
) -> None:
    for method, request in (
        ("Get", pb.RolloutsGetRequest()),
        ("Start", pb.RolloutsStartRequest(version=2)),
        ("SetTraffic", pb.SetTrafficRequest(percent=5)),
        ("Promote", pb.PromoteRequest()),
        ("RollBack", pb.RollBackRequest()),
    ):
        code, _ = await refused(getattr(served.stub, method)(request, metadata=metadata, timeout=10))
        assert code is grpc.StatusCode.UNAUTHENTICATED
    code, _ = await refused(served.stub.Watch(pb.RolloutsWatchRequest(), metadata=metadata).read())
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert served.control.documents == {}


async def test_a_rollout_from_start_to_promotion(served: Served) -> None:
    first = await served.stub.Get(pb.RolloutsGetRequest(), **call())
    assert (first.rollout.stable, first.rollout.phase) == (1, pb.ROLLOUT_PHASE_IDLE)
    request = pb.RolloutsStartRequest(steps=[10, 100], step_seconds=5, shadow_percent=0)
    begun = (await served.stub.Start(request, **call())).rollout
    assert (begun.phase, begun.candidate, list(begun.steps)) == (pb.ROLLOUT_PHASE_CHECK, 2, [10, 100])
    for move in (state.checked, state.loaded, lambda r, now: state.proven(r, now, "proven")):
        await served.records.change(lambda r, move=move: move(r, time.time()))  # type: ignore[misc]
    await write_heartbeat(served.control, "recommender", Heartbeat(1, time.time(), "waits for calls"))
    held = (await served.stub.SetTraffic(pb.SetTrafficRequest(percent=30), **call())).rollout
    assert (held.phase, held.percent, held.held) == (pb.ROLLOUT_PHASE_CANARY, 30, True)
    assert held.note == "waits for calls"
    promoted = (await served.stub.Promote(pb.PromoteRequest(), **call())).rollout
    assert (promoted.phase, promoted.stable, promoted.candidate) == (pb.ROLLOUT_PHASE_RETIRE, 2, 0)
    back = (await served.stub.RollBack(pb.RollBackRequest(reason="too soon"), **call())).rollout
    assert (back.phase, back.stable, back.reason) == (pb.ROLLOUT_PHASE_ROLLED_BACK, 1, "too soon")
    assert [entry.text for entry in back.history][-1] == "rolled back to version 1: too soon"


async def test_what_cannot_be_done_is_said_and_changes_nothing(served: Served) -> None:
    start = served.stub.Start
    code, sentence = await refused(start(pb.RolloutsStartRequest(version=9), **call()))
    assert (code, sentence) == (
        grpc.StatusCode.NOT_FOUND,
        "version 9 is not published; published are: 1, 2",
    )
    code, sentence = await refused(start(pb.RolloutsStartRequest(version=1), **call()))
    assert (code, "stable version already" in sentence) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    code, sentence = await refused(start(pb.RolloutsStartRequest(version=2, steps=[5, 1]), **call()))
    assert (code, sentence.startswith("steps: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, sentence = await refused(start(pb.RolloutsStartRequest(version=2, step_seconds=-1), **call()))
    assert (code, sentence.startswith("step_seconds: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, sentence = await refused(start(pb.RolloutsStartRequest(version=2, shadow_percent=101), **call()))
    assert (code, sentence.startswith("shadow_percent: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, sentence = await refused(served.stub.SetTraffic(pb.SetTrafficRequest(percent=101), **call()))
    assert sentence == "percent: must be from 0 to 100, not 101"
    for method, request in (("Promote", pb.PromoteRequest()), ("RollBack", pb.RollBackRequest())):
        code, sentence = await refused(getattr(served.stub, method)(request, **call()))
        assert (code, "idle" in sentence) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    rollout, _ = await served.records.read()
    assert rollout is None or rollout.phase is Phase.IDLE


async def test_what_was_meant_for_another_version_is_refused(served: Served) -> None:
    await served.stub.Start(pb.RolloutsStartRequest(version=2), **call())
    for method, request in (
        ("SetTraffic", pb.SetTrafficRequest(percent=5, version=3)),
        ("Promote", pb.PromoteRequest(version=3)),
        ("RollBack", pb.RollBackRequest(version=3)),
    ):
        code, sentence = await refused(getattr(served.stub, method)(request, **call()))
        assert (code, "the rollout is of version 2 now, not of 3" in sentence) == (
            grpc.StatusCode.ABORTED,
            True,
        )
    await served.stub.RollBack(pb.RollBackRequest(version=2), **call())


async def test_the_token_that_lets_watch_lets_do_nothing_else(served: Served, tmp_path: Path) -> None:
    token = watching_token(tmp_path)
    assert token != TOKEN
    await served.stub.Get(pb.RolloutsGetRequest(), **call(token))
    async for _ in served.stub.Watch(pb.RolloutsWatchRequest(), **call(token)):
        break
    for method, request in (
        (served.stub.Start, pb.RolloutsStartRequest()),
        (served.stub.SetTraffic, pb.SetTrafficRequest()),
        (served.stub.Promote, pb.PromoteRequest()),
        (served.stub.RollBack, pb.RollBackRequest()),
    ):
        assert (await refused(method(request, **call(token))))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_that_was_replaced_holds_at_once(served: Served, tmp_path: Path) -> None:
    (tmp_path / "operator_token").write_text("another")
    code, _ = await refused(served.stub.Get(pb.RolloutsGetRequest(), **call()))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    await served.stub.Get(pb.RolloutsGetRequest(), **call("another"))


async def test_who_watches_sees_state_and_figures_again_and_again(served: Served) -> None:
    async def report(calls: int) -> None:
        figures = VersionFigures(calls=calls, errors=1, shadow_calls=4, pairs=2, overlap_sum=1.0)
        figures.latency.add([3.0] * calls)
        await served.control.put_report(
            "a", Report(time.time(), 1, frozenset({1}), {}, {1: figures}).encode()
        )

    await report(10)
    watching = served.stub.Watch(pb.RolloutsWatchRequest(), **call())
    first = await watching.read()
    assert first.rollout.stable == 1
    await report(30)
    second = await watching.read()
    [version] = second.versions
    assert (version.version, version.calls, version.errors) == (1, 20, 0)
    assert version.p99_ms == pytest.approx(3.0, rel=0.1)
    watching.cancel()


@pytest.mark.parametrize("method", METHODS)
def test_no_method_is_left_to_the_generated_base_which_answers_unimplemented(method: str) -> None:
    assert getattr(Service, method) is not getattr(RolloutsServicer, method)
