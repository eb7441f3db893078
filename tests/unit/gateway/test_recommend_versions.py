"""The request path with several versions: which one answers, and which one for one that fails."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from features.catalog import Catalog
from gateway.errors import ModelUnavailable, VersionGone
from gateway.recommend import Degraded
from tests.unit.gateway.fakes import serving_version
from tests.unit.gateway.request_path import RequestPath

CANARY = (8, "canary")


@pytest.fixture
def path(catalog: Catalog) -> RequestPath:
    """User "u" meets the stable version 7, user "c" the canary 8; both have a history."""
    path = RequestPath(catalog)
    path.saw("u", "1")
    path.saw("c", "1")
    path.router.cohorts["c"] = CANARY
    return path


async def submitted(path: RequestPath, *versions: int) -> None:
    """Waits until the scorer has been asked for these versions."""
    async with asyncio.timeout(60):
        while sorted(path.scorer.versions) != sorted(versions):
            await asyncio.sleep(0)


async def test_each_cohort_is_answered_by_its_version_and_told_both(path: RequestPath) -> None:
    pages = [await path.page("u"), await path.page("c"), await path.page("u", pinned=8)]
    assert [(page.version, page.cohort, page.degraded) for page in pages] == [
        (7, "stable", Degraded.NO),
        (8, "canary", Degraded.NO),
        (8, "pinned", Degraded.NO),
    ]
    assert path.scorer.versions == [7, 8, 8]
    assert (path.counted(7), path.counted(8)) == ((1, 0, 0), (2, 0, 0))
    assert path.figures.flush()[8].latency.total == 2


@pytest.mark.parametrize(
    "error", [ModelUnavailable("told to fail"), VersionGone("gone"), KeyError("nonsense")], ids=repr
)
async def test_what_a_canary_fails_the_stable_version_answers(path: RequestPath, error: Exception) -> None:
    path.scorer.errors[8] = error
    page = await path.page("c")
    assert (page.version, page.cohort, page.degraded) == (7, "canary", Degraded.NO)
    assert path.scorer.versions == [8, 7]
    assert (path.counted(7), path.counted(8)) == ((1, 0, 0), (1, 1, 0))


async def test_a_canary_that_hangs_leaves_the_stable_version_time_to_answer(path: RequestPath) -> None:
    path.scorer.gates[8] = asyncio.Event()
    page = await path.page("c", timeout_s=0.2)
    assert (page.version, page.degraded) == (7, Degraded.NO)
    canary, stable = path.scorer.asked
    assert canary["timeout_s"] <= 0.12
    assert stable["timeout_s"] <= 0.08
    assert path.counted(8) == (1, 1, 0)
    path.scorer.gates[8].set()
    await path.batches.close()


async def test_a_canary_gets_a_part_of_the_time_and_the_stable_version_all(path: RequestPath) -> None:
    await path.page("c", timeout_s=10)
    await path.page("u", timeout_s=10)
    canary_s, stable_s = (asked["timeout_s"] for asked in path.scorer.asked)
    assert 5 < canary_s <= 6
    assert 9 < stable_s <= 10


async def test_a_call_that_all_versions_fail_is_degraded_by_the_last_one(path: RequestPath) -> None:
    path.scorer.error = ModelUnavailable("told to fail")
    page = await path.page("c")
    assert (page.version, page.cohort, page.degraded) == (7, "canary", Degraded.MODEL_UNAVAILABLE)
    assert path.scorer.versions == [8, 7]
    assert (path.counted(7), path.counted(8)) == ((1, 1, 1), (1, 1, 0))


async def test_the_stable_version_is_not_asked_twice(path: RequestPath) -> None:
    path.scorer.errors[7] = ModelUnavailable("told to fail")
    assert (await path.page("u")).degraded is Degraded.MODEL_UNAVAILABLE
    assert path.scorer.versions == [7]
    assert path.counted(7) == (1, 1, 1)


async def test_a_stable_version_that_has_just_gone_is_replaced_within_the_call(path: RequestPath) -> None:
    path.scorer.errors[7] = VersionGone("UNAVAILABLE: it is not at ready state")
    page = await path.page("u", timeout_s=5)
    assert (page.version, page.cohort, page.degraded) == (8, "stable", Degraded.NO)
    assert path.scorer.versions == [7, 8]
    assert path.scorer.asked[1]["timeout_s"] <= 5


async def test_a_version_that_went_while_its_calls_waited_is_not_called(
    path: RequestPath, catalog: Catalog
) -> None:
    path.scorer.gates[8] = asyncio.Event()
    first = asyncio.create_task(path.page("c"))
    await submitted(path, 8)
    second = asyncio.create_task(path.page("c"))
    await asyncio.sleep(0)
    del path.router.ready[8]
    path.scorer.gates[8].set()
    assert [page.version for page in await asyncio.gather(first, second)] == [8, 7]
    assert path.scorer.versions == [8, 7]


async def test_what_an_operator_pins_is_answered_by_no_other_version_and_leaves_no_trace(
    path: RequestPath,
) -> None:
    await path.page("u", pinned=8)
    path.scorer.errors[8] = VersionGone("gone")
    page = await path.page("u", pinned=8)
    assert (page.cohort, page.degraded) == ("pinned", Degraded.MODEL_UNAVAILABLE)
    assert path.scorer.versions == [8, 8]
    page = await path.page("u", pinned=8)
    assert (page.cohort, page.degraded) == ("pinned", Degraded.MODEL_UNAVAILABLE)
    await path.batches.close()
    assert path.store.answers == {}


async def test_a_canary_that_hangs_holds_up_no_call_of_the_stable_version(path: RequestPath) -> None:
    path.scorer.gates[8] = asyncio.Event()
    held = asyncio.create_task(path.page("c"))
    await submitted(path, 8)
    assert (await path.page("u")).version == 7
    assert not held.done()
    path.scorer.gates[8].set()
    assert (await held).version == 8


async def test_versions_that_are_gone_leave_nothing_behind(path: RequestPath, catalog: Catalog) -> None:
    await path.page("c")
    await path.batches.close()
    del path.router.ready[8]
    path.router.ready[9] = serving_version(9, catalog)
    await path.page("u", pinned=9)
    assert path.batches._lanes.keys() == {9}
    await path.page("u")
    assert path.batches._lanes.keys() == {7, 9}


async def test_a_call_that_no_version_could_answer_or_fail_is_nobodys(path: RequestPath) -> None:
    assert (await path.page("nobody")).degraded is Degraded.COLD_START
    path.store.fails = True
    assert (await path.page("u")).degraded is Degraded.STORE_UNAVAILABLE
    assert (await path.page("c")).degraded is Degraded.STORE_UNAVAILABLE
    path.store.fails = False
    path.router.serving = None
    assert (await path.page("u")).degraded is Degraded.MODEL_UNAVAILABLE
    assert path.figures.flush() == {}


async def test_time_in_triton_counts_for_each_call_apart_by_whether_a_vector_was_encoded(
    path: RequestPath,
) -> None:
    await asyncio.gather(path.page("u"), path.page("u"))
    await path.batches.close()
    path.store.records["u"] = replace(path.store.records["u"], answer=path.store.answers["u"])
    await asyncio.gather(path.page("u"), path.page("u"), path.page("u"))
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.model_encoded.total, figures.model_cached.total) == (5, 2, 3)


async def test_an_exposure_is_noted_when_the_version_of_the_arm_has_answered(path: RequestPath) -> None:
    path.router.cohorts |= {"u": (7, "ads/control"), "c": (8, "ads/treatment")}
    path.router.cohorts["nobody"] = (8, "ads/treatment")
    await path.page("u")
    await path.page("u")
    path.scorer.errors[8] = ModelUnavailable("told to fail")
    assert (await path.page("c")).version == 7
    assert (await path.page("nobody")).degraded is Degraded.COLD_START
    await path.exposures.write()
    assert [(one.user_id, one.arm) for one in path.store.control.exposed] == [("u", "ads/control")]
    del path.scorer.errors[8]
    assert (await path.page("c")).version == 8
    await path.exposures.write()
    assert [(one.user_id, one.arm) for one in path.store.control.exposed[1:]] == [("c", "ads/treatment")]


async def test_a_version_that_stands_in_for_an_arm_exposes_nobody(path: RequestPath) -> None:
    path.router.cohorts["c"] = (9, "ads/treatment")
    page = await path.page("c")
    assert (page.version, page.cohort) == (7, "ads/treatment")
    await path.page("u")
    await path.exposures.write()
    assert path.store.control.exposed == []


async def test_a_defect_is_said_whoever_answers_in_the_end(
    path: RequestPath, caplog: pytest.LogCaptureFixture
) -> None:
    path.scorer.errors[8] = KeyError("nonsense")
    with caplog.at_level(logging.ERROR):
        await path.page("c")
    assert "nonsense" in caplog.text
