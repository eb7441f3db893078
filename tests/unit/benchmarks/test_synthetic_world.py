"""The synthetic world: the same for a seed, and in the shape of real logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_users import fill
from benchmarks.synthetic_world import make_world
from features.schema import item_key
from features.settings import Settings
from features.store import open_store

NOW = 1_700_000_000
WORLD = make_world(2_000)


def test_a_world_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    again, other = make_world(2_000), make_world(2_000, seed=2)
    assert np.array_equal(WORLD.cluster_of, again.cluster_of)
    assert np.array_equal(WORLD.vectors(8), again.vectors(8))
    assert not np.array_equal(WORLD.vectors(8), other.vectors(8))


def test_users_are_the_same_each_time() -> None:
    few = list(WORLD.histories(3, 10, NOW))
    again = list(WORLD.histories(3, 10, NOW))
    assert [user for user, _, _ in few] == ["user-0", "user-1", "user-2"]
    for (_, items, times), (_, same_items, same_times) in zip(few, again, strict=True):
        assert np.array_equal(items, same_items)
        assert np.array_equal(times, same_times)


def test_every_item_is_in_one_cluster_and_no_cluster_is_empty() -> None:
    assert sorted(WORLD.order.tolist()) == list(range(2_000))
    assert (np.diff(WORLD.starts) > 0).all()
    for cluster in (0, len(WORLD.starts) - 2):
        members = WORLD.order[WORLD.starts[cluster] : WORLD.starts[cluster + 1]]
        assert (WORLD.cluster_of[members] == cluster).all()


def test_a_few_clusters_and_a_few_items_have_most_events() -> None:
    events = np.concatenate([items for _, items, _ in WORLD.histories(500, 50, NOW)])
    clusters = np.bincount(WORLD.cluster_of[events], minlength=len(WORLD.starts) - 1)
    assert clusters[:10].sum() > 0.4 * len(events)  # of 100; even shares would be 0.1
    items = np.sort(np.bincount(events, minlength=2_000))[::-1]
    assert items[:200].sum() > 0.4 * len(events)


def test_users_stay_with_an_interest_for_a_while_and_then_drift() -> None:
    stays = [
        float((np.diff(WORLD.cluster_of[items]) == 0).mean()) for _, items, _ in WORLD.histories(200, 50, NOW)
    ]
    assert 0.85 < np.mean(stays) < 0.97
    assert min(stays) < 0.95  # somebody drifts more than twice


def test_histories_are_in_order_of_time_and_end_days_ago() -> None:
    for _, _, times in WORLD.histories(50, 20, NOW):
        assert (np.diff(times) > 0).all()
        assert NOW - 31 * 86_400 < times[-1] < NOW - 86_400


def test_items_of_a_cluster_are_nearer_to_each_other_than_to_others() -> None:
    vectors = WORLD.vectors(32)
    assert not vectors[0].any()
    unit = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    cosine = unit[:400] @ unit[:400].T
    same = WORLD.cluster_of[:400, None] == WORLD.cluster_of[None, :400]
    np.fill_diagonal(same, val=False)
    apart = WORLD.cluster_of[:400, None] != WORLD.cluster_of[None, :400]
    assert cosine[same].mean() > 0.4
    assert abs(cosine[apart].mean()) < 0.1


def test_popularity_is_what_histories_draw() -> None:
    events = np.concatenate([items for _, items, _ in WORLD.histories(4_000, 50, NOW)])
    drawn = np.bincount(events, minlength=2_000) / len(events) * 1e5
    expected = WORLD.users_of_items()
    often = expected > 300
    assert often.sum() > 20
    assert drawn[often] == pytest.approx(expected[often], rel=0.4)
    assert (expected >= 1).all()


@pytest.mark.parametrize("clusters_of", [10, 19, 50])
def test_small_worlds_work_too(clusters_of: int) -> None:
    world = make_world(clusters_of)
    assert len(list(world.histories(2, 3, NOW))) == 2


def test_a_filled_store_holds_whole_records(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, store="lmdb")
    ids = asyncio.run(fill(settings, WORLD, 30, 12))
    assert ids == [f"user-{i}" for i in range(30)]

    async def read() -> None:
        store = open_store(settings)
        try:
            record, nobody = await store.read(["user-7", "user-30"])
        finally:
            await store.close()
        assert len(record.keys) == 12
        assert record.answer is None
        assert record.revision == record.born > 0
        assert set(record.keys.tolist()) <= {item_key(WORLD.item_id(i)) for i in range(2_000)}
        assert not len(nobody.keys)

    asyncio.run(read())
