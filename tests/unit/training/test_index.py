"""Lists of items: balanced, whole, of like items; and the neighbours that are found in them."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tests.unit.training.indexed import NOW, clustered
from training import neighbours as of_neighbours
from training.index import SLACK, build_index, lifts_at, usual_lists
from training.model_config import Freshness
from training.neighbours import neighbours


@pytest.mark.parametrize(("count", "lists"), [(3_000, 64), (2_999, 7), (50, 50), (2, 2), (1, 1)])
def test_every_item_is_in_one_list_and_no_list_is_longer_than_the_others_may_be(count, lists):
    index = build_index(clustered(count, 8), lists=lists)
    real = index.items[index.items > 0]
    assert sorted(real.tolist()) == list(range(1, count + 1))
    assert index.items.shape == (lists, math.ceil(count / lists * SLACK) + 1)
    assert index.items[0, 0] == 0  # row 0 of the graph is padding


def test_lists_hold_like_items():
    vectors = clustered(3_000, 16)
    index = build_index(vectors, lists=64)
    inside = [vectors[row[row > 0]].var(axis=0).sum() for row in index.items if (row > 0).sum() > 1]
    assert np.mean(inside) < 0.4 * vectors[1:].var(axis=0).sum()


def test_what_is_said_of_a_list_is_true_of_its_items():
    vectors, rng = clustered(500, 6), np.random.default_rng(1)
    levels, lifts = rng.normal(size=(2, 501)).astype(np.float32)
    index = build_index(vectors, levels, lifts, lists=9)
    for at, row in enumerate(index.items):
        own = row[row > 0]
        assert index.means[at] == pytest.approx(vectors[own].mean(axis=0), abs=1e-5)
        assert index.spreads[at] == pytest.approx(np.sqrt(vectors[own].var(axis=0).mean()), abs=1e-3)
        assert index.levels[at] == pytest.approx([levels[own].mean(), levels[own].std()], abs=1e-3)
        assert index.lifts[at] == pytest.approx([lifts[own].mean(), lifts[own].std()], abs=1e-3)


def test_items_that_score_high_whatever_the_user_wants_are_put_together():
    vectors, levels = clustered(2_000, 8), np.zeros(2_001, np.float32)
    levels[1::20] = 10.0
    index = build_index(vectors, levels, lists=32)
    share = np.array([(levels[row[row > 0]] > 0).mean() for row in index.items if row.any()])
    assert ((share < 0.05) | (share > 0.9)).mean() > 0.85


def test_items_that_are_all_alike_are_put_into_lists_within_seconds():
    vectors = np.zeros((30_001, 8), np.float32)
    vectors[1:3_001] = clustered(3_000, 8)[1:]
    start = time.process_time()
    index = build_index(vectors, lists=512)
    assert time.process_time() - start < 60
    assert len(np.unique(index.items)) == 30_001


def test_the_same_items_give_the_same_lists():
    vectors = clustered(1_000, 8)
    assert (build_index(vectors, lists=20).items == build_index(vectors, lists=20).items).all()


def test_lists_grow_with_the_square_root_of_the_catalogue():
    assert [usual_lists(n) for n in (1, 10_000, 100_000, 1_000_000)] == [4, 512, 1024, 4096]
    assert build_index(clustered(2, 4)).lists == 2


def test_lifts_are_those_of_the_configuration():
    freshness = Freshness(half_life_days=2, weight=3)
    times = np.array([0, NOW, NOW - 2 * 86_400, NOW + 9])
    assert lifts_at(freshness, NOW, times) == pytest.approx([0, 3, 1.5, 3])
    assert lifts_at(None, NOW, times).tolist() == [0, 0, 0, 0]


def test_neighbours_of_an_index_are_nearly_those_of_all_pairs():
    vectors = clustered(3_000, 16)
    exact, _ = neighbours(vectors[1:], 20, None)
    got, scores = neighbours(vectors[1:], 20, build_index(vectors, lists=64))
    unit = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    assert np.einsum("nkw,nw->nk", unit[got], unit) == pytest.approx(scores, abs=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    assert (got != np.arange(3_000)[:, None]).all()
    assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(got, exact, strict=True)]) > 0.9


def test_neighbours_of_an_index_hold_no_more_pairs_at_once_than_they_may(monkeypatch):
    vectors, index, fill, held = clustered(600, 8), None, of_neighbours._fill, []
    index = build_index(vectors, lists=3)
    whole = neighbours(vectors[1:], 20, index)

    def counting(near, unit, own, others, count):
        held.append(len(own) * len(others))
        fill(near, unit, own, others, count)

    monkeypatch.setattr(of_neighbours, "_fill", counting)
    monkeypatch.setattr(of_neighbours, "_PAIRS_AT_ONCE", 5_000)
    parts = neighbours(vectors[1:], 20, index)
    assert max(held) <= 5_000
    assert sum(held) == 600 * 600
    assert (parts[0] == whole[0]).all()
    assert parts[1] == pytest.approx(whole[1], abs=1e-6)


def test_all_pairs_are_compared_without_an_index():
    vectors = clustered(40, 4)[1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    got, scores = neighbours(vectors, 39, None)
    assert scores == pytest.approx(-np.sort(-cosine, axis=1)[:, :39], abs=1e-5)
    assert np.take_along_axis(cosine, got, axis=1) == pytest.approx(scores, abs=1e-5)
    assert neighbours(vectors[:1], 0, None)[0].shape == (1, 0)


def test_an_item_with_few_others_near_has_as_many_neighbours_as_there_are():
    index = build_index(clustered(4, 4), lists=2)
    got, scores = neighbours(clustered(4, 4)[1:], 3, index)
    assert sorted(got[0].tolist()) == [1, 2, 3]
    lonely = build_index(clustered(60, 4), lists=60)
    got, scores = neighbours(clustered(60, 4)[1:], 50, lonely)
    assert ((got >= 0).sum(axis=1) == 15).all()  # of the sixteen nearest lists
    assert (scores[got < 0] == 0).all()
