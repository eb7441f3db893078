from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from training import baselines
from training.baselines import EASE, ItemKNN, Popularity, count, ease_weights, fit_baselines
from training.dataset import History
from training.splits import Case


def history(*items):
    array = np.array(items, np.int32)
    return History("u", array, np.arange(len(items)), np.ones(len(items), np.uint8))


def case(*items):
    return Case(history(*items), np.array([6], np.int32), len(items))


# Items 1 and 2 are had together, and so are 3 and 4; 5 by everybody.
LOG = [history(1, 2, 5), history(1, 2, 5), history(3, 4, 5), history(4, 3, 3, 5), history(2, 5, 1)]


def test_counts_are_of_users_however_often_they_had_an_item():
    counts = count(LOG, 6)
    assert counts.users == 5
    assert counts.item_users.tolist() == [3, 3, 2, 2, 5, 0]
    assert counts.together[0].tolist() == [3, 3, 0, 0, 3, 0]


def test_popularity_scores_everybody_alike():
    scores = Popularity(count(LOG, 6)).scores([case(1), case(4)])
    assert (scores[0] == scores[1]).all()
    assert scores[0].argmax() == 4


def test_linear_models_prefer_what_goes_with_the_history():
    counts = count(LOG, 6)
    for model in (ItemKNN(counts), EASE(ease_weights(counts, l2=1.0))):
        scores = model.scores([case(1), case(3)])
        assert scores[0, 1] > max(scores[0, 2], scores[0, 3]), model.name
        assert scores[1, 3] > max(scores[1, 0], scores[1, 1]), model.name
        assert np.isfinite(scores).all()


def test_item_knn_is_the_cosine_of_the_user_sets_of_the_nearest_only():
    counts = count(LOG, 6)
    cosines = [3 / np.sqrt(15), 3 / np.sqrt(15), 2 / np.sqrt(10), 2 / np.sqrt(10), 0, 0]
    assert ItemKNN(counts).scores([case(5)])[0] == pytest.approx(cosines)
    # Each of items 1 to 4 is nearer to its companion than to 5.
    assert ItemKNN(counts, neighbours=1).scores([case(5)])[0] == pytest.approx([0, 0, 0, 0, 0, 0])
    assert ItemKNN(counts, neighbours=1).scores([case(1)])[0, 1] == pytest.approx(1.0)


def test_recent_items_weigh_more_with_a_half_life():
    weights = ease_weights(count(LOG, 6), l2=1.0)
    scores = EASE(weights).scores([case(1), case(3)])
    got = EASE(weights, half_life=1.0).scores([case(1, 3)])
    assert got[0] == pytest.approx(scores[0] / 2 + scores[1], abs=1e-6)


def test_ease_is_its_closed_form_and_leaves_the_counts_as_they_are():
    counts = count(LOG, 6)
    before = counts.together.copy()
    inverse = np.linalg.inv(before.astype(float) + 300 * np.eye(6))
    expected = np.eye(6) - inverse / np.diag(inverse)
    assert ease_weights(counts) == pytest.approx(expected, abs=1e-6)
    assert (counts.together == before).all()


def test_ease_takes_no_more_than_two_matrices_beside_those_of_the_inversion():
    counts = count(LOG, 400)
    tracemalloc.start()
    try:
        ease_weights(counts)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.1 * 400 * 400 * 8


def test_both_variants_of_ease_share_one_matrix():
    *_, plain, recent = fit_baselines(count(LOG, 6))
    assert (plain.name, recent.name) == ("EASE^R", "EASE^R, recent first")
    assert np.shares_memory(plain._weights, recent._weights)


def test_a_catalogue_too_large_for_a_square_matrix_has_popularity_only(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_ITEMS", 5)
    assert [model.name for model in fit_baselines(count(LOG, 6))] == ["popularity"]
