from __future__ import annotations

import math

import pytest

from tests.unit.training.judging import judged
from training.slices import slices


def by_name(rankers):
    return {one.name: one for one in slices(rankers)}


def test_users_are_sliced_by_what_is_known_of_them():
    ranks = [[1], [0], [2], [3], [0], [1], [1]]
    got = by_name([judged(ranks, lengths=[1, 20, 21, 50, 51, 100, 101])])
    assert {name: one.users for name, one in got.items() if name.startswith("history")} == {
        "history ≤ 20": 2, "history 21–50": 2, "history 51–100": 2, "history > 100": 1,
    }  # fmt: skip
    assert got["history ≤ 20"].metrics["hr@10"] == 0.5
    assert got["history 21–50"].metrics["ndcg@10"] == pytest.approx((1 / math.log2(3) + 1 / 2) / 2)
    assert got["history > 100"].metrics["mrr@10"] == 1.0


def test_targets_are_sliced_by_popularity_and_a_user_by_those_of_a_slice_alone():
    got = by_name([judged([[1, 0, 4], [7], [2]], deciles=[[10, 10, 1], [10], [0]])])
    assert {name: one.users for name, one in got.items() if not name.startswith("history")} == {
        "target decile 1": 1, "target decile 10": 2, "cold target": 1,
    }  # fmt: skip
    assert got["target decile 10"].metrics["recall@10"] == pytest.approx((1 / 2 + 1) / 2)
    assert got["target decile 10"].metrics["hr@5"] == 0.5
    assert got["target decile 10"].metrics["ndcg@5"] == pytest.approx(1 / (1 + 1 / math.log2(3)) / 2)
    # The first user's other targets are in a better slot, and do not count here.
    assert got["target decile 1"].metrics["mrr@10"] == pytest.approx(1 / 4)
    assert got["cold target"].metrics["mrr@10"] == pytest.approx(1 / 2)


def test_slices_without_a_user_are_left_out_and_the_order_is_fixed():
    got = slices([judged([[1], [1], [1]], lengths=[60, 5, 5], deciles=[[0], [9], [2]])])
    assert [one.name for one in got] == [
        "history ≤ 20", "history 51–100", "target decile 2", "target decile 9", "cold target",
    ]  # fmt: skip


def test_the_seeds_of_a_model_are_averaged():
    first, second = judged([[1], [0]], lengths=[5, 30]), judged([[2], [1]], lengths=[5, 30])
    got = by_name([first, second])
    assert got["history ≤ 20"].metrics["mrr@5"] == pytest.approx((1 + 1 / 2) / 2)
    assert got["history 21–50"].metrics["mrr@5"] == pytest.approx((0 + 1) / 2)
    assert got["history 21–50"].users == 1
