"""Shadow calls: unseen, compared, and never in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.catalog import Catalog, CatalogItem, write_catalog
from features.figures import VersionFigures
from features.record import EMPTY_RECORD, with_attributes
from features.schema import item_key, item_keys
from gateway.errors import ModelUnavailable
from gateway.page import Degraded
from gateway.shadow import _compare
from tests.unit.gateway.fakes import ranking_version, serving_version
from tests.unit.gateway.request_path import RequestPath


@pytest.fixture
def path(catalog: Catalog) -> RequestPath:
    """Version 8 answers all requests of version 7 unseen. Users "u0" to "u19" have a history."""
    path = RequestPath(catalog)
    for n in range(20):
        path.saw(f"u{n}", "1")
    path.router.shadowed = (path.router.ready[8], 100.0)
    return path


async def shadow(path: RequestPath) -> VersionFigures:
    """The figures of version 8, once its call in flight has ended."""
    if path.shadow._call is not None:
        await asyncio.wait([path.shadow._call])
    return path.figures.flush().get(8, VersionFigures())


async def pages(path: RequestPath, count: int, **fields: Any) -> None:
    """So many requests, in one batch."""
    await asyncio.gather(*(path.page(f"u{n}", **fields) for n in range(count)))


async def test_a_request_is_answered_unseen_too_and_both_answers_are_compared(path: RequestPath) -> None:
    path.scorer.first[8] = 12  # items 12 to 17 beside 10 to 15
    page = await path.page("u0", excluded=(item_key("9"),))
    assert page.version == 7
    figures = await shadow(path)
    assert path.scorer.versions == [7, 8]
    assert item_key("9") in path.scorer.calls[1]["exclude_keys"][0].tolist()
    assert (figures.shadow_calls, figures.shadow_errors, figures.shadow_dropped) == (1, 0, 0)
    assert (figures.shadow_batches, figures.failed_shadow_batches, figures.shadow_cold) == (1, 0, 0)
    assert figures.pairs == 1
    assert abs(figures.overlap - 4 / 6) < 1e-9
    assert (figures.ranked, figures.correlation_sum) == (1, 1.0)  # items 12 to 15 in the same order
    assert (figures.calls, figures.errors, figures.batches) == (0, 0, 0)


async def test_what_is_compared_and_what_fails_is_counted_for_metrics(
    path: RequestPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, list[float], int]] = []

    def shadowed(version: int, overlaps: list[float], failed: int = 0) -> None:
        counted.append((version, [round(overlap, 3) for overlap in overlaps], failed))

    monkeypatch.setattr(path.metrics, "shadowed", shadowed)
    path.scorer.first[8] = 12
    await pages(path, 2)
    await shadow(path)
    path.scorer.errors[8] = ModelUnavailable("told to fail")
    await pages(path, 3)
    await shadow(path)
    assert counted == [(8, [0.667, 0.667], 0), (8, [], 3)]


def test_only_the_top_10_count_and_empty_slots_do_not() -> None:
    keys = np.arange(1, 21)
    twelve, five, none = (np.where(keys <= filled, keys, 0) for filled in (12, 5, 0))

    assert _compare(twelve, five) == (0.5, 1.0)
    assert _compare(five, twelve) == (1.0, 1.0)
    assert _compare(five, none) == (0.0, None)
    assert _compare(none, twelve) is None


@pytest.mark.parametrize(
    ("own", "correlation"),
    [
        ([1, 2, 3, 4], 1.0),
        ([9, 1, 8, 2, 3, 7, 4], 1.0),  # what only one of them has does not count
        ([4, 3, 2, 1], -1.0),
        ([2, 1, 3, 4], 0.8),
        ([1, 9, 8, 7], None),
        ([1, 2, 9, 8], 1.0),
    ],
)
def test_the_order_of_the_items_that_both_have_is_compared_whatever_their_scores(
    own: list[int], correlation: float | None
) -> None:
    compared = _compare(np.array([1, 2, 3, 4]), np.array(own))
    assert compared is not None
    assert compared[1] == (None if correlation is None else pytest.approx(correlation))


async def test_a_user_without_a_history_whom_the_candidate_does_not_know_is_left_out_uncounted(
    path: RequestPath, catalog: Catalog
) -> None:
    path.router.serving = path.router.ready[7] = ranking_version(7, catalog, "country")
    path.store.records["new"] = with_attributes(EMPTY_RECORD, {"country": "DE"})
    assert (await path.page("new")).degraded is Degraded.NO
    figures = await shadow(path)
    assert (figures.shadow_calls, figures.shadow_cold, figures.shadow_dropped) == (0, 0, 0)
    path.router.shadowed = (ranking_version(8, catalog, "country"), 100.0)
    await path.page("new")
    assert (await shadow(path)).shadow_calls == 1


async def test_the_candidate_encodes_every_vector_is_asked_for_none_and_nothing_of_it_is_kept(
    path: RequestPath,
) -> None:
    await path.page("u0")
    await shadow(path)
    await path.batches.close()
    assert path.scorer.calls[1]["user_vector_fresh"].tolist() == [[0]]
    asked = path.scorer.asked[1]
    assert (asked["reasons"], asked["vectors"]) == (False, False)
    assert path.store.answers["u0"].version == 7


async def test_a_candidate_that_hangs_delays_no_answer_and_gets_no_second_call(path: RequestPath) -> None:
    path.scorer.gates[8] = asyncio.Event()
    await pages(path, 2)
    await pages(path, 3)
    assert path.scorer.versions == [7, 8, 7]
    path.scorer.gates[8].set()
    figures = await shadow(path)
    assert (figures.shadow_calls, figures.shadow_dropped) == (2, 3)
    await path.page("u0")
    assert (await shadow(path)).shadow_calls == 3


async def test_a_call_has_few_rows(path: RequestPath) -> None:
    await pages(path, 12)
    figures = await shadow(path)
    assert (figures.shadow_calls, figures.shadow_dropped, figures.pairs) == (8, 4, 8)
    assert (figures.shadow_batches, figures.failed_shadow_batches) == (1, 0)


async def test_while_a_full_batch_waits_nothing_is_answered_unseen(path: RequestPath) -> None:
    path.batches.max_batch = 4
    path.scorer.gate.clear()
    path.scorer.gates[8] = asyncio.Event()
    path.scorer.gates[8].set()
    requests = [asyncio.create_task(path.page(f"u{n}")) for n in range(8)]
    async with asyncio.timeout(60):
        while not path.scorer.versions:
            await asyncio.sleep(0)
    path.scorer.gate.set()
    await asyncio.gather(*requests)
    figures = await shadow(path)
    # The first batch left four others waiting; behind those there was nobody.
    assert (figures.shadow_dropped, figures.shadow_calls) == (4, 4)


async def test_a_candidate_that_fails_is_counted_and_fails_nobody(path: RequestPath) -> None:
    for error in (ModelUnavailable("told to fail"), KeyError("nonsense")):
        path.scorer.errors[8] = error
        assert (await path.page("u0")).degraded is Degraded.NO
    figures = await shadow(path)
    assert (figures.shadow_calls, figures.shadow_errors, figures.pairs) == (2, 2, 0)
    assert (figures.shadow_batches, figures.failed_shadow_batches) == (2, 2)
    assert path.counted(7) == (2, 0, 0)


async def test_a_call_of_several_rows_that_fails_is_one_failed_batch(path: RequestPath) -> None:
    path.scorer.errors[8] = ModelUnavailable("told to fail")
    await pages(path, 3)
    figures = await shadow(path)
    assert (figures.shadow_calls, figures.shadow_errors) == (3, 3)
    assert (figures.shadow_batches, figures.failed_shadow_batches) == (1, 1)


async def test_users_that_the_candidate_does_not_know_are_counted_and_not_sent_to_it(
    path: RequestPath, tmp_path: Path
) -> None:
    write_catalog(
        tmp_path / "candidate.lmdb",
        items=[CatalogItem("2", "Two", ("all",))],
        categories=["all"],
        popular=item_keys(["2"]),
        neighbour_keys=np.zeros((1, 3), np.int64),
        neighbour_scores=np.zeros((1, 3), np.float32),
    )
    candidate = Catalog(tmp_path / "candidate.lmdb")
    path.router.shadowed = (serving_version(8, candidate), 100.0)
    path.saw("u0", "2")
    await pages(path, 3)
    await path.page("nobody")  # nor does the stable version know this one
    figures = await shadow(path)
    assert (figures.shadow_cold, figures.shadow_calls, figures.shadow_dropped) == (2, 1, 0)
    await path.page("u1")
    figures = await shadow(path)
    assert (figures.shadow_cold, figures.shadow_calls, figures.shadow_batches) == (3, 1, 1)
    candidate.close()


async def test_only_users_of_the_stable_version_and_known_ones_are_answered_unseen(path: RequestPath) -> None:
    path.router.cohorts["u1"] = (8, "canary")
    await asyncio.gather(path.page("u1"), path.page("nobody"), path.page("u2", pinned=7))
    await shadow(path)
    assert sorted(path.scorer.versions) == [7, 8]
    assert (await shadow(path)).shadow_calls == 0


async def test_without_a_candidate_to_shadow_nothing_is_answered_unseen(path: RequestPath) -> None:
    for shadowed in (None, (path.router.ready[8], 0.0)):
        path.router.shadowed = shadowed
        await pages(path, 5)
    assert path.scorer.versions == [7, 7]


async def test_a_share_of_the_requests_is_sampled(path: RequestPath, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.09, 0.5, 0.1, 0.05])
    monkeypatch.setattr("gateway.shadow.random", lambda: next(draws))
    path.router.shadowed = (path.router.ready[8], 10.0)
    await pages(path, 4)
    assert (await shadow(path)).shadow_calls == 2


async def test_closing_waits_for_no_shadow_call(path: RequestPath) -> None:
    path.scorer.gates[8] = asyncio.Event()
    await path.page("u0")
    await asyncio.wait_for(path.batches.close(), 60)
    assert path.shadow._call is None
