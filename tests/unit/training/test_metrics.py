from __future__ import annotations

import math

import numpy as np
import pytest

from training.metrics import hit_matrix, ranking_metrics, target_ranks


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


def test_the_rank_of_a_target_is_its_slot_in_the_list_of_its_user():
    ranked = np.array([[3, 1, 9], [3, 1, 4]])
    targets = [np.array([1], np.int32), np.array([4, 3, 9], np.int32)]
    assert target_ranks(ranked, targets).tolist() == [2, 3, 1, 0]


def test_hits_are_of_the_users_own_targets_within_the_slots():
    hits = hit_matrix(np.array([2, 3, 1, 0]), np.array([1, 3]), 2)
    assert hits.tolist() == [[False, True], [True, False]]
