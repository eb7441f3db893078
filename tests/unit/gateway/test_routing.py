"""Which version a call goes to, by the rollout record and by what Triton has ready."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from features.control import Document
from features.schema import EventType
from features.settings import Settings
from features.traffic import Traffic, document_name
from gateway.routing import Choice, Router, RoutingError
from tests.unit.fake_control import FakeControl
from tests.unit.gateway.fakes import INPUTS, OUTPUTS, FakeTriton

USERS = [f"user {n}" for n in range(300)]
EXPERIMENT = {"name": "warm-start", "control": 1, "treatment": 2, "percent": 50}


class Routed:
    """A router, and what it looks at."""

    def __init__(self, settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel) -> None:
        self.triton, self.control = triton, FakeControl()
        self.router = Router(settings, channel, self.control)

    def record(self, revision: int = 1, **fields: Any) -> Traffic:
        """Writes the record; the one that gateways are to make of it."""
        fields = {"stable": 1, "salt": "s", "phase": "whatever else is in it"} | fields
        self.control.documents[document_name("recommender")] = Document(revision, json.dumps(fields).encode())
        return Traffic.model_validate(fields)

    async def look(self, *ready: int) -> Router:
        self.triton.has(*ready)
        await self.router.look()
        return self.router

    def where(self, user: str = "u", pinned: int | None = None) -> tuple[int | None, str]:
        version, cohort = self.router.choose(user, pinned)
        return version and version.version, cohort

    @property
    def everywhere(self) -> set[tuple[int | None, str]]:
        return set(map(self.where, USERS))


@pytest.fixture
async def routed(settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel) -> Routed:
    return Routed(settings, triton, channel)


def served(router: Router) -> int | None:
    return router.serving and router.serving.version


async def test_without_a_record_the_highest_ready_version_gets_everything_and_is_followed(
    routed: Routed,
) -> None:
    for ready, serves in (((1,), 1), ((1, 2), 2), ((1,), 1), ((), None)):
        router = await routed.look(*ready)
        assert served(router) == serves
        assert routed.everywhere == {(serves, "stable")}
    assert (router.catalog_version, router.revision) == (1, 0)


async def test_fallback_pages_hold_back_what_the_version_of_the_catalogue_does(
    settings: Settings, triton: FakeTriton, channel: grpc.aio.Channel
) -> None:
    def consuming(router: Router) -> list[int]:
        return np.flatnonzero(router.catalog_consumes).tolist() if router.catalog_consumes is not None else []

    for version, names in ((2, ["LIKE"]), (3, ["SAVE"])):
        file = settings.model_repository / "recommender" / str(version) / "manifest.json"
        file.write_text(json.dumps({"widths": {"T": version + 3}, "consumes": names}))
    routed = Routed(settings, triton, channel)
    assert consuming(routed.router) == [EventType.SAVE]  # the newest, before anything is ready
    routed.record(stable=2)
    assert consuming(await routed.look()) == [EventType.LIKE]  # the record's stable one
    assert consuming(await routed.look(3)) == [EventType.SAVE]  # what stands in for it
    assert consuming(await routed.look(1)) == []


async def test_with_a_record_the_stable_version_gets_everything_that_nobody_else_does(routed: Routed) -> None:
    routed.record(stable=1, candidate=2, shadow_percent=0)
    router = await routed.look(1, 2, 3)
    assert (served(router), router.catalog_version, router.revision) == (1, 1, 1)
    assert routed.everywhere == {(1, "stable")}
    assert router.shadowed is None


async def test_a_canary_gets_its_users_and_no_others(routed: Routed) -> None:
    traffic = routed.record(candidate=2, percent=25)
    await routed.look(1, 2)
    assert [routed.where(user) for user in USERS] == [traffic.choose(user) for user in USERS]
    assert routed.everywhere == {(1, "stable"), (2, "canary")}


async def test_users_of_a_version_that_is_not_ready_meet_the_stable_one_and_keep_their_cohort(
    routed: Routed,
) -> None:
    routed.record(candidate=2, percent=50)
    await routed.look(1)
    assert routed.everywhere == {(1, "stable"), (1, "canary")}
    routed.record(2, experiment=EXPERIMENT)
    await routed.look(1)
    assert routed.everywhere == {(1, "warm-start/control"), (1, "warm-start/treatment")}


@pytest.mark.parametrize(
    "trial", [{"candidate": 3, "percent": 1}, {"experiment": EXPERIMENT | {"treatment": 3}}]
)
async def test_what_is_on_trial_does_not_get_everything_because_the_stable_version_is_not_ready(
    routed: Routed, trial: dict[str, Any]
) -> None:
    routed.record(**trial)
    router = await routed.look(2, 3)
    assert served(router) == 2
    router = await routed.look(3)
    assert served(router) is None
    assert routed.everywhere <= {
        (None, "stable"),
        (3, "canary"),
        (None, "warm-start/control"),
        (3, "warm-start/treatment"),
    }


async def test_an_experiment_splits_users_between_its_arms(routed: Routed) -> None:
    traffic = routed.record(candidate=2, experiment=EXPERIMENT)
    await routed.look(1, 2)
    assert [routed.where(user) for user in USERS] == [traffic.choose(user) for user in USERS]
    assert routed.everywhere == {(1, "warm-start/control"), (2, "warm-start/treatment")}


async def test_an_operators_pin_is_heard_whatever_the_record_says(routed: Routed) -> None:
    routed.record(candidate=2, percent=50)
    await routed.look(1, 3)
    assert {routed.where(user, 3) for user in USERS} == {(3, "pinned")}
    assert routed.router.choose("u", 2) == Choice(None, "pinned")


async def test_a_changed_record_is_obeyed_at_the_next_look(routed: Routed) -> None:
    for revision, stable in enumerate((1, 2, 1), 1):
        routed.record(revision, stable=stable)
        router = await routed.look(1, 2)
        assert (served(router), router.revision) == (stable, revision)


@pytest.mark.parametrize("bad", [b"no JSON", b"{}", b'{"stable": 0, "salt": ""}'])
async def test_a_record_that_cannot_be_read_leaves_the_one_before_in_force_and_is_said_once(
    routed: Routed, caplog: pytest.LogCaptureFixture, bad: bytes
) -> None:
    routed.record(stable=1)
    await routed.look(1, 2)
    routed.control.documents[document_name("recommender")] = Document(2, bad)
    for _ in range(3):
        router = await routed.look(1, 2)
    assert (served(router), router.revision) == (1, 1)
    assert caplog.text.count("the rollout record is not read, and stays as it was") == 1
    routed.record(3, stable=2)
    assert served(await routed.look(1, 2)) == 2


async def test_a_store_that_fails_leaves_the_record_in_force(routed: Routed) -> None:
    routed.record(stable=1)
    await routed.look(1, 2)
    routed.control.fails = True
    router = await routed.look(1, 2)
    assert (served(router), router.revision) == (1, 1)


async def test_it_tells_who_shares_the_users_as_the_record_wants_it(routed: Routed) -> None:
    router = await routed.look(1, 2)
    assert router.shares == (2, 0, 0.0), "no record: who serves is stable"
    assert router.answering == {(2, "stable")}
    routed.record(candidate=2, percent=25)
    assert (await routed.look(1)).shares == (1, 2, 25.0), "whatever is ready"
    routed.record(2, candidate=2, experiment=EXPERIMENT)
    assert (await routed.look(1, 2)).shares == (1, 2, 50.0)
    arms = {(1, "warm-start/control"), (2, "warm-start/treatment"), (1, "warm-start/treatment")}
    assert router.answering == arms, "the stable version stands in for the treatment"
    routed.record(3, candidate=3, percent=25)
    assert (await routed.look(2)).answering == {
        *((1, "stable"), (1, "canary"), (3, "canary")),
        *((2, "stable"), (2, "canary")),  # it stands in
    }
    routed.record(4)
    assert (await routed.look(1, 2)).shares == (1, 0, 0.0)


async def test_the_candidate_is_shadowed_while_the_record_says_so_and_it_is_ready(routed: Routed) -> None:
    routed.record(candidate=2, shadow_percent=10)
    router = await routed.look(1)
    assert router.shadowed is None
    await routed.look(1, 2)
    assert router.shadowed == (router.ready[2], 10)
    routed.record(2, candidate=2)
    await routed.look(1, 2)
    assert router.shadowed is None


async def test_a_version_that_a_call_found_gone_is_replaced_at_once_and_may_come_back(routed: Routed) -> None:
    routed.record(stable=2)
    router = await routed.look(1, 2)
    stable = router.ready[2]
    router.gone(stable, "told so")
    assert routed.everywhere == {(1, "stable")}
    await routed.look(1, 2)
    assert routed.everywhere == {(2, "stable")}
    router.gone(stable, "a late word on the one before")
    assert routed.everywhere == {(2, "stable")}


async def test_before_triton_answers_the_catalogue_is_that_of_the_stable_version_or_the_newest(
    routed: Routed,
) -> None:
    router = await routed.look()
    assert (served(router), router.catalog_version, len(router.catalog)) == (None, 3, 30)
    routed.record(stable=2)
    await routed.look()
    assert (served(router), router.catalog_version) == (None, 2)


async def test_a_newest_version_whose_catalogue_cannot_be_read_keeps_no_gateway_from_starting(
    settings: Settings, channel: grpc.aio.Channel
) -> None:
    (settings.model_repository / "recommender" / "3" / "catalog.lmdb").write_bytes(b"broken")
    assert Router(settings, channel, FakeControl()).catalog_version == 2


async def test_items_of_every_version_that_can_be_called_are_known(routed: Routed) -> None:
    router = await routed.look(1, 2)
    assert list(router.catalogs) == [router.ready[2].catalog, router.ready[1].catalog]


async def test_a_refused_version_is_served_by_an_older_one_and_said(routed: Routed) -> None:
    routed.triton.versions = {"1": (INPUTS, OUTPUTS), "2": (INPUTS, OUTPUTS[:2])}
    await routed.router.look()
    assert served(routed.router) == 1
    assert routed.router.refused == {2: "it lacks the output 'reason_keys'"}


async def test_a_record_is_obeyed_while_triton_hangs(routed: Routed, monkeypatch: pytest.MonkeyPatch) -> None:
    await routed.look(1, 2)

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(routed.router, "look_at_triton", hang)
    looking = asyncio.create_task(routed.router.look_for_good())
    routed.record(stable=1)
    async with asyncio.timeout(60):
        while served(routed.router) != 1:
            await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.wait([looking])


async def test_an_empty_repository_is_said_with_what_to_do(tmp_path: Path, channel: grpc.aio.Channel) -> None:
    with pytest.raises(RoutingError, match=r"no published version; run make publish"):
        Router(Settings(model_repository=tmp_path), channel, FakeControl())
