"""The request path with several versions: which one answers, and which one for one that fails."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from features.catalog import Catalog, CatalogItem, write_catalog
from features.figures import VersionFigures
from features.schema import item_keys
from gateway.errors import ModelUnavailable, VersionGone
from gateway.page import Degraded, Page
from tests.unit.gateway.fakes import serving_version
from tests.unit.gateway.request_path import RequestPath, shown

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
    assert (path.counted(7), path.counted(8)) == ((1, 0, 0), (1, 0, 0))
    assert path.figures.flush()[8].latency.total == 1


async def test_a_page_shows_items_as_the_version_does_that_answers(path: RequestPath, tmp_path: Path) -> None:
    items = [CatalogItem(str(n), f"New title {n}", ()) for n in range(30)]
    keys = item_keys(item.item_id for item in items)
    near, none = np.zeros((30, 0), np.int64), np.zeros((30, 0), np.float32)
    there = tmp_path / "new.lmdb"
    write_catalog(there, items=items, categories=[], popular=keys, neighbour_keys=near, neighbour_scores=none)
    path.router.ready[8] = serving_version(8, Catalog(there))
    for user, titles in (("u", "Title"), ("c", "New title"), ("u", "Title")):
        page = shown(await path.page(user))
        assert [item.title for item in page] == [f"{titles} {n}" for n in (10, 11, 12)]


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
    assert path.figures.flush() == {}


async def test_a_batch_counts_if_a_call_in_it_is_not_pinned(path: RequestPath) -> None:
    await asyncio.gather(path.page("u"), path.page("u", pinned=7))
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.latency.total) == (1, 1)
    assert (figures.batches, figures.failed_batches, figures.model_encoded.total) == (1, 0, 1)
    path.scorer.errors[7] = ModelUnavailable("told to fail")
    await asyncio.gather(path.page("u"), path.page("u", pinned=7))
    await path.page("u", pinned=7)
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.errors, figures.degraded) == (2, 1, 1)
    assert (figures.batches, figures.failed_batches) == (2, 1)


async def test_pinned_calls_of_users_that_the_version_does_not_know_count_nowhere(path: RequestPath) -> None:
    path.saw("stranger", "gone")
    assert (await path.page("stranger", pinned=8)).degraded is Degraded.COLD_START
    assert path.figures.flush() == {}


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


async def test_time_in_triton_counts_once_for_each_batch_apart_by_whether_a_vector_was_encoded(
    path: RequestPath,
) -> None:
    await asyncio.gather(path.page("u"), path.page("u"))
    await path.batches.close()
    path.store.records["u"] = path.store.records["u"]._replace(answer=path.store.answers["u"])
    await asyncio.gather(path.page("u"), path.page("u"), path.page("u"))
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.latency.total) == (5, 5)
    assert (figures.batches, figures.model_encoded.total, figures.model_cached.total) == (2, 1, 1)


@pytest.mark.parametrize("error", [ModelUnavailable("told to fail"), KeyError("nonsense")], ids=repr)
async def test_a_batch_of_five_calls_that_fails_is_five_errors_and_one_failed_batch(
    path: RequestPath, error: Exception
) -> None:
    path.scorer.errors[7] = error
    await asyncio.gather(*(path.page("u") for _ in range(5)))
    figures = path.figures.flush()[7]
    assert (figures.calls, figures.errors, figures.degraded) == (5, 5, 5)
    assert (figures.batches, figures.failed_batches) == (1, 1)
    assert (figures.model_encoded.total, figures.model_cached.total) == (0, 0)


async def released(path: RequestPath, *requests: asyncio.Task[Page]) -> VersionFigures:
    """The figures of version 7, whose answer comes when these requests have ended, however they did."""
    await asyncio.gather(*requests, return_exceptions=True)
    path.scorer.gates[7].set()
    await path.batches.close()
    return path.figures.flush()[7]


async def test_a_batch_that_is_answered_when_the_time_of_all_its_calls_is_up_has_failed(
    path: RequestPath,
) -> None:
    path.scorer.gates[7] = asyncio.Event()
    requests = [asyncio.create_task(path.page("u", timeout_s=0.05)) for _ in range(2)]
    pinned = asyncio.create_task(path.page("u", timeout_s=60, pinned=7))
    figures = await released(path, *requests)
    # An operator's call in the same batch can wait, and is nobody's measure.
    assert (await pinned).degraded is Degraded.NO
    assert path.scorer.versions == [7]
    assert (figures.calls, figures.errors) == (2, 2)
    assert (figures.batches, figures.failed_batches, figures.model_encoded.total) == (1, 1, 0)


async def test_a_batch_that_is_in_time_for_its_most_patient_call_has_not_failed(path: RequestPath) -> None:
    path.scorer.gates[7] = asyncio.Event()
    hurried = asyncio.create_task(path.page("u", timeout_s=0.05))
    patient = asyncio.create_task(path.page("u", timeout_s=60))
    figures = await released(path, hurried)
    assert [(await page).degraded for page in (hurried, patient)] == [Degraded.MODEL_UNAVAILABLE, Degraded.NO]
    assert (figures.calls, figures.errors, figures.batches, figures.failed_batches) == (2, 1, 1, 0)


async def test_callers_that_hang_up_before_their_time_make_no_failed_batch(path: RequestPath) -> None:
    path.scorer.gates[7] = asyncio.Event()
    requests = [asyncio.create_task(path.page("u", timeout_s=60)) for _ in range(2)]
    await submitted(path, 7)
    for request in requests:
        request.cancel()
    figures = await released(path, *requests)
    assert (figures.calls, figures.batches, figures.failed_batches) == (0, 1, 0)


async def test_a_version_that_knows_no_item_of_a_history_has_a_cold_call_unless_there_is_no_history(
    path: RequestPath,
) -> None:
    path.saw("stranger", "gone", "also gone")
    pages = await asyncio.gather(path.page("stranger"), path.page("nobody"), path.page("u"))
    assert [page.degraded for page in pages] == [Degraded.COLD_START, Degraded.COLD_START, Degraded.NO]
    figures = path.figures.flush()[7]
    assert (figures.cold, figures.calls, figures.latency.total, figures.batches) == (1, 1, 1, 1)
    path.router.cohorts["stranger"] = CANARY
    await path.page("stranger")
    figures = path.figures.flush()[8]
    assert (figures.cold, figures.calls, figures.batches) == (1, 0, 0)


async def exposed(path: RequestPath) -> list[tuple[str, str]]:
    """Who is stored to have met which arm."""
    await path.exposures.write()
    return [(one.user_id, one.arm) for one in path.store.control.exposed]


async def test_an_exposure_is_noted_when_a_user_of_an_arm_gets_a_page_of_a_model(path: RequestPath) -> None:
    path.router.cohorts |= {"u": (7, "ads/control"), "c": (8, "ads/treatment")}
    await path.page("u")
    await path.page("u")
    await path.page("c")
    assert await exposed(path) == [("u", "ads/control"), ("c", "ads/treatment")]


async def test_a_user_whose_arm_is_answered_by_the_stable_version_is_exposed_all_the_same(
    path: RequestPath,
) -> None:
    path.saw("d", "1")
    path.router.cohorts |= {"c": (8, "ads/treatment"), "d": (9, "ads/treatment")}
    path.scorer.errors[8] = ModelUnavailable("told to fail")
    # Version 8 fails, version 9 is not ready.
    assert [(await path.page(user)).version for user in "cd"] == [7, 7]
    assert await exposed(path) == [("c", "ads/treatment"), ("d", "ads/treatment")]


async def test_a_fallback_page_a_pinned_one_and_one_outside_of_experiments_expose_nobody(
    path: RequestPath,
) -> None:
    path.router.cohorts |= {"c": (8, "ads/treatment"), "nobody": (8, "ads/treatment")}
    assert (await path.page("u")).degraded is Degraded.NO
    assert (await path.page("c", pinned=8)).degraded is Degraded.NO
    assert (await path.page("nobody")).degraded is Degraded.COLD_START
    path.scorer.error = ModelUnavailable("told to fail")
    assert (await path.page("c")).degraded is Degraded.MODEL_UNAVAILABLE
    path.store.fails = True
    assert (await path.page("c")).degraded is Degraded.STORE_UNAVAILABLE
    assert await exposed(path) == []


async def test_a_defect_is_said_whoever_answers_in_the_end(
    path: RequestPath, caplog: pytest.LogCaptureFixture
) -> None:
    path.scorer.errors[8] = KeyError("nonsense")
    with caplog.at_level(logging.ERROR):
        await path.page("c")
    assert "nonsense" in caplog.text
