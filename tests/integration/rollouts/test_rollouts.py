"""Healthy versions, one after the other, under load: nobody fails, and nothing is left of those before."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from features.operator_token import TOKEN_METADATA, VERSION_METADATA, operator_token
from features.record import Event
from features.schema import EventType
from features.traffic import parse_traffic
from rollout.configuration import read_versions
from rollout.window import look
from tests.integration.program import READY_S
from tests.integration.rollouts.deployment import USERS, Deployment
from tests.integration.tiny_variant import ITEM_IDS

pytestmark = pytest.mark.triton

START = (
    "rollout start --steps 10,50,100 --step-time 1s --grace 1s --shadow 20 --min-calls 10 --min-overlap 0.4"
).split()


def both(version: int) -> set[tuple[str, int]]:
    """The version's recommender and its encoder."""
    return {("recommender", version), ("user_encoder", version)}


async def every_gateway_can_call(deployment: Deployment, version: int) -> None:
    """Returns when each worker has said so."""
    async with asyncio.timeout(READY_S):
        while True:
            reports = (await look(deployment.store.control, time.time())).fresh
            if len(reports) == deployment.settings.workers and all(version in each.ready for each in reports):
                return
            await asyncio.sleep(0.05)


async def test_rollouts_in_a_row_fail_no_call_and_leave_nothing(deployment: Deployment) -> None:
    """Among them versions with another history length, vector width, page and set of categories, and one with
    the inputs that earlier releases do not have, whose scores are probabilities.
    """
    async with deployment.running(driver=True), deployment.load() as load:
        await load.until(calls=50)
        await deployment.reaches(lambda _: deployment.served.keys() == both(1))
        before = len(deployment.processes)
        for kind in ("second", "wide", "ranked", "narrow", "third"):
            version = await asyncio.to_thread(deployment.versions.publish, kind)
            done = await deployment.run(*START)
            assert done.returncode == 0, done.stdout + done.stderr + deployment.logs()
            assert f"version {version} is the stable version now" in done.stdout.replace("\n", " ")
            record = await deployment.record()
            assert record is not None
            assert (record["stable"], record["phase"]) == (version, "idle")
            await deployment.reaches(
                lambda _, version=version: read_versions(deployment.versions.folder) == [version]
            )
        await load.until(calls=50)
        await deployment.reaches(lambda _: deployment.served.keys() == both(6))
        assert len(deployment.processes) == before
    assert load.failed == []
    assert load.degraded == []
    assert set(load.by_version) == {1, 2, 3, 4, 5, 6}


async def test_users_stay_where_they_are_and_a_restart_of_everything_goes_on_with_it(
    deployment: Deployment,
) -> None:
    async with deployment.running(driver=True):
        deployment.versions.publish("second")
        done = await deployment.run(*START, "--step-time", "1h", "--detach")
        assert done.returncode == 0, done.stderr
        await deployment.reaches(lambda record: record["phase"] == "shadow")
        assert (await deployment.run("rollout", "set", "25")).returncode == 0
        await asyncio.sleep(1)  # the time within which every gateway obeys
        async with deployment.load() as load:
            await load.until(calls=2 * len(USERS))
        # Every program ends and is started again, Triton last: the gateway finds it later.
        for program in (deployment.driver, deployment.inference, deployment.gateway):
            assert program is not None
            assert await asyncio.to_thread(program.stop) == 0
        await deployment.start_driver()
        deployment.start_gateway()
        deployment.start_inference()
        await deployment.wait_ready()
        await every_gateway_can_call(deployment, 2)
        async with deployment.load() as again:
            await again.until(calls=2 * len(USERS))
        record = await deployment.record()
        assert record is not None
        assert (record["phase"], record["percent"], record["held"]) == ("canary", 25, True)
        document = await deployment.store.control.read_document("rollout/recommender")
        traffic = parse_traffic(document.value)
        for call in load.calls + again.calls:
            assert (call.version, call.cohort) == traffic.choose(call.user_id)
        # Back within a second, whatever the driver does.
        assert deployment.driver is not None
        deployment.driver.kill()
        async with deployment.load() as back:
            assert (await deployment.run("rollout", "rollback", "--reason", "enough")).returncode == 0
            rolled_back = time.time()
            await back.until(calls=300)
        assert {call.version for call in back.since(rolled_back + 1)} == {1}
    for seen in (load, again, back):
        assert seen.failed == []
        assert seen.degraded == []


async def test_an_operator_looks_at_a_candidate_that_no_user_meets(deployment: Deployment) -> None:
    async with deployment.running(driver=True):
        deployment.versions.publish("second")
        await deployment.run(*START, "--step-time", "1h", "--detach")
        await deployment.reaches(lambda record: record["phase"] == "shadow")
        token = operator_token(deployment.settings.state_dir)
        async with grpc.aio.insecure_channel(deployment.settings.gateway_target) as channel:
            stub = RecommenderStub(channel)

            async def page(*metadata: tuple[str, str]) -> pb.RecommendResponse:
                request = pb.RecommendRequest(user_id=USERS[0], limit=5)
                return await stub.Recommend(request, metadata=metadata, timeout=5)

            usual = await page()
            assert (usual.model.version, usual.cohort) == (1, "stable")
            pinned = await page((VERSION_METADATA, "2"), (TOKEN_METADATA, token))
            assert (pinned.model.version, pinned.cohort, pinned.degraded) == (2, "pinned", 0)
            for metadata, code in (
                (((VERSION_METADATA, "2"),), grpc.StatusCode.UNAUTHENTICATED),
                (((VERSION_METADATA, "2"), (TOKEN_METADATA, "guessed")), grpc.StatusCode.UNAUTHENTICATED),
                (((VERSION_METADATA, "9"), (TOKEN_METADATA, token)), grpc.StatusCode.FAILED_PRECONDITION),
                (((VERSION_METADATA, "two"), (TOKEN_METADATA, token)), grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await page(*metadata)
                assert caught.value.code() is code


async def test_an_experiment_splits_users_for_as_long_as_it_runs_and_reports_what_they_did(
    deployment: Deployment,
) -> None:
    async with deployment.running(driver=True):
        deployment.versions.publish("second")
        begun = await deployment.run(
            *"rollout experiment --name larger --percent 50 --min-overlap 0.4".split()
        )
        assert begun.returncode == 0, begun.stdout + begun.stderr
        async with deployment.load() as load:
            await deployment.reaches(lambda record: record["phase"] == "experiment")
            await load.until(calls=3 * len(USERS))
        arms: dict[str, set[str]] = {}
        for call in load.calls:
            arms.setdefault(call.cohort, set()).add(call.user_id)
        arms.pop("stable", None)
        assert arms.keys() == {"larger/control", "larger/treatment"}
        assert arms["larger/control"].isdisjoint(arms["larger/treatment"])
        assert len(arms["larger/control"]) + len(arms["larger/treatment"]) == len(USERS)
        clicked = sorted(arms["larger/treatment"])[:30]
        now = int(time.time())
        await deployment.store.append([Event(user, ITEM_IDS[0], EventType.CLICK, now) for user in clicked])
        said = (await deployment.run("rollout", "report", "--name", "larger")).stdout
        rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
        share = 100 * len(clicked) / len(arms["larger/treatment"])
        assert f"{share:.2f} %" in rows["treatment"]
        assert "0.00 %" in rows["control"]
        assert "excludes 0" in said
        # Two rollouts at once cannot be.
        refused = await deployment.run(*START, "--version", "2")
        assert refused.returncode == 2
        assert (await deployment.run("rollout", "end-experiment")).returncode == 0
        await deployment.reaches(lambda _: read_versions(deployment.versions.folder) == [1])
        async with deployment.load() as after:
            await after.until(calls=50)
        assert {call.cohort for call in after.since(after.calls[0].began + 1)} <= {"stable"}
    assert load.failed + after.failed == []
    assert load.degraded + after.degraded == []
