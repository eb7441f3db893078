"""Every kind of broken candidate, under load: it is stopped, and callers do not notice."""

from __future__ import annotations

import asyncio
import re

import pytest

from benchmarks.gateway_metrics import read
from rollout.configuration import read_versions
from tests.integration.rollouts.deployment import Deployment
from tests.observability import OF_SHADOW_CALLS, scraped

pytestmark = pytest.mark.triton

START = (
    # 1 % of the 200 users would be none in one draw of seven: the step would wait for their calls for ever.
    "rollout start --steps 20,50,100 --step-time 2s --grace 1s --shadow 20 --min-calls 10 --min-overlap 0.4"
).split()

SEEN_BEFORE_ANY_CALL = {
    "spoilt file": r"saved_model\.pb: is not the file that was published",
    "huge": r"Triton cannot load",
    "wrong-signature": r"fails a golden request|wants an input|Triton cannot load",
    "nan": r"not finite",
    "shuffled": r"top 10 holds 0\.\d\d of version 1's",
    "slow": r"takes [\d.]+ times as long",
}
"""What a candidate's defect is called; preflight finds these, so no user meets such a candidate."""

SEEN_LIVE = {
    "nan-live": r"calls failed",
    "shuffled-live": r"top 10 holds 0\.\d\d of the stable version's",
    "slow-live": r"took Triton longer than",
    "failing-live": r"calls failed",
}
"""Those that show themselves only in real requests."""

FAILURES = {"riptide_shadow_failures_total"}
COUNTED = {"nan-live": FAILURES, "shuffled-live": OF_SHADOW_CALLS - FAILURES}
"""What a scrape has of the shadow calls that showed it. tests/e2e/test_observability.py makes none."""

PATIENT = "--shadow 0 --steps 50 --step-time 1m".split()
"""For what a few calls do not prove, as a hundredth of them fails, or few are answered in a step because they
are slow: the step is as long as it takes, and users are behind the calls."""


async def roll_out(deployment: Deployment, kind: str, *options: str) -> tuple[int, str]:
    """Rolls a broken version out; its number, and why it was rolled back."""
    version = deployment.versions.place("second" if kind == "spoilt file" else kind)
    if kind == "spoilt file":
        deployment.versions.spoil(version)
    done = await deployment.run(*START, *options, "--version", str(version))
    record = await deployment.record()
    assert record is not None
    assert done.returncode == 1, f"{kind}: {done.stdout}{done.stderr}{deployment.logs()}"
    assert (record["phase"], record["stable"], record["candidate"]) == ("rolled_back", 1, version)
    return version, record["reason"]


async def test_what_preflight_can_see_harms_no_call(deployment: Deployment) -> None:
    async with deployment.running(driver=True), deployment.load() as load:
        for kind, reason in SEEN_BEFORE_ANY_CALL.items():
            version, said = await roll_out(deployment, kind)
            assert re.search(reason, said), f"{kind}: {said}"
            assert version not in load.by_version, kind
            if kind in ("spoilt file", "huge"):  # it never was in Triton, and is not tried again
                await deployment.reaches(lambda _: read_versions(deployment.versions.folder) == [1])
        await load.until(calls=50)
    assert load.failed == []
    assert load.degraded == []
    assert set(load.by_version) == {1}


@pytest.mark.parametrize("kind", sorted(SEEN_LIVE))
async def test_what_shows_in_real_requests_only_is_rolled_back_and_callers_are_answered_all_the_same(
    deployment: Deployment, kind: str
) -> None:
    async with deployment.running(driver=True), deployment.load(rate=150) as load:
        version, said = await roll_out(
            deployment, kind, *(PATIENT if kind in ("failing-live", "slow-live") else ())
        )
        assert re.search(SEEN_LIVE[kind], said), said
        counts = await asyncio.to_thread(read, deployment.settings.http_port)
        samples = [(name, dict(labels)) for name, labels in counts.samples]
        counted = {asked.metric for asked in scraped() if any(asked.met_by(*sample) for sample in samples)}
        assert COUNTED.get(kind, set()) <= counted
        await load.until(calls=200)
    assert load.failed == []
    assert load.degraded == []
    # Kept to be looked at, and of no more use to anybody.
    record = await deployment.record()
    assert record is not None
    assert {call.version for call in load.since(record["since"] + 1)} == {1}
    assert read_versions(deployment.versions.folder) == [1, version]


async def test_a_candidate_whose_process_is_killed_is_rolled_back_and_harms_no_call(
    deployment: Deployment,
) -> None:
    async with deployment.running(driver=True), deployment.load(rate=150) as load:
        deployment.versions.place("second")
        begun = await deployment.run(*START, "--step-time", "1h", "--detach")
        assert begun.returncode == 0, begun.stderr
        await deployment.reaches(lambda record: record["phase"] == "shadow")
        assert (await deployment.run("rollout", "set", "30")).returncode == 0
        await load.until(calls=200)
        deployment.served["recommender", 2].kill()
        record = await deployment.reaches(lambda record: record["phase"] == "rolled_back")
        await load.until(calls=200)
    assert record["stable"] == 1
    assert load.failed == []
    assert load.degraded == []
