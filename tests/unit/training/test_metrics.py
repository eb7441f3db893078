from __future__ import annotations

import math

import numpy as np
import pytest

from training.metrics import coverage, hit_matrix, novelty, ranking_metrics


def test_metrics_of_one_target_at_the_third_slot():
    hits = np.array([[False, False, True, False, False]])
    got = ranking_metrics(hits, np.array([1]), (2, 5))
    assert {name: value.tolist() for name, value in got.items()} == {
        "hr@2": [0.0], "precision@2": [0.0], "recall@2": [0.0], "ndcg@2": [0.0], "mrr@2": [0.0],
        "hr@5": [1.0], "precision@5": [0.2], "recall@5": [1.0], "ndcg@5": [0.5], "mrr@5": [1 / 3],
    }  # fmt: skip


def test_metrics_of_several_targets():
    hits = np.array([[True, False, True, False]])
    got = {name: float(value[0]) for name, value in ranking_metrics(hits, np.array([3]), (4,)).items()}
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert got["precision@4"] == 0.5
    assert got["recall@4"] == pytest.approx(2 / 3)
    assert got["ndcg@4"] == pytest.approx((1 + 1 / 2) / ideal)
    assert got["mrr@4"] == 1.0


def test_a_perfect_list_shorter_than_the_targets_has_an_ndcg_of_one():
    assert ranking_metrics(np.ones((1, 5), bool), np.array([50]), (5,))["ndcg@5"][0] == pytest.approx(1.0)


def test_a_cutoff_beyond_the_lists_is_refused():
    with pytest.raises(ValueError, match="cannot judge 10 slots"):
        ranking_metrics(np.ones((1, 5), bool), np.array([1]), (10,))


def test_hits_are_the_users_own_targets():
    ranked = np.array([[3, 1], [3, 1]])
    targets = [np.array([1], np.int32), np.array([3, 9], np.int32)]
    assert hit_matrix(ranked, targets).tolist() == [[False, True], [True, False]]


def test_coverage_counts_items_shown_at_all():
    assert coverage(np.array([5, 0, 1, 0]), 4) == 0.5


def test_novelty_is_the_mean_self_information_of_what_is_shown():
    assert novelty(np.array([1, 3, 0]), np.array([8, 2, 8]), users=8) == pytest.approx((0 + 3 * 2) / 4)
    assert novelty(np.array([1]), np.array([0]), users=8) == 3.0
