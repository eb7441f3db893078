from __future__ import annotations

import numpy as np
import pytest

from features.catalog import CatalogItem
from training.exposure import (
    Exposure,
    category_vectors,
    coverage,
    gini,
    intra_list_distances,
    novelty,
    popularity_bias,
    popularity_deciles,
    popularity_percentiles,
)


def test_coverage_counts_items_shown_at_all():
    assert coverage(np.array([5, 0, 1, 0])) == 0.5


def test_novelty_is_the_mean_self_information_of_what_is_shown():
    assert novelty(np.array([1, 3, 0]), np.array([8, 2, 8]), users=8) == pytest.approx((0 + 3 * 2) / 4)
    assert novelty(np.array([1]), np.array([0]), users=8) == 3.0


def test_a_percentile_is_the_share_of_less_popular_items_and_half_of_the_equals():
    assert popularity_percentiles(np.array([7, 0, 7, 30])) == pytest.approx([0.5, 0.125, 0.5, 0.875])


def test_deciles_are_of_the_items_that_somebody_had():
    assert popularity_deciles(np.array([0, *range(1, 21), 0])).tolist() == [
        0, *(decile for decile in range(1, 11) for _ in range(2)), 0,
    ]  # fmt: skip
    assert popularity_deciles(np.array([0, 5, 5, 5])).tolist() == [0, 6, 6, 6]


def test_popularity_bias_is_the_mean_percentile_of_what_is_shown():
    had = np.array([1, 2, 3, 4])  # percentiles 1/8, 3/8, 5/8, 7/8
    assert popularity_bias(np.array([1, 1, 1, 1]), had) == pytest.approx(0.5)
    assert popularity_bias(np.array([1, 0, 0, 3]), had) == pytest.approx((1 + 3 * 7) / 8 / 4)


def test_the_gini_of_exposure_is_zero_for_equal_shares_and_largest_for_one_item():
    assert gini(np.array([3, 3, 3, 3])) == pytest.approx(0.0)
    assert gini(np.array([0, 9, 0, 0])) == pytest.approx(0.75)
    assert gini(np.array([3, 1])) == pytest.approx(0.25)  # area: 1/4 of the exposure to half of the items


def test_the_distance_within_a_list_is_one_minus_the_mean_cosine_of_its_pairs():
    vectors = np.array([[2, 0], [0, 5], [1, 1], [3, 0]], np.float32)
    got = intra_list_distances(np.array([[0, 1, 2], [0, 3, 3], [1, 0, 3]]), vectors)
    assert got == pytest.approx([1 - (0 + 2 * np.sqrt(0.5)) / 3, 0.0, 1 - 1 / 3])


def test_an_item_without_a_vector_is_left_out_of_its_list():
    vectors = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    got = intra_list_distances(np.array([[0, 1, 2], [0, 2, 2]]), vectors)
    assert got[0] == pytest.approx(1.0)
    assert np.isnan(got[1])


def test_the_batches_of_lists_do_not_change_their_distances(monkeypatch):
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(20, 3)).astype(np.float32)
    ranked = np.stack([generator.permutation(20)[:5] for _ in range(11)])
    whole = intra_list_distances(ranked, vectors)
    monkeypatch.setattr("training.exposure._FLOATS_AT_ONCE", 4 * 5 * 3)
    assert intra_list_distances(ranked, vectors) == pytest.approx(whole)


def test_the_figures_of_lists_taken_in_by_batches():
    vectors = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    exposure = Exposure(4, vectors)
    exposure.add(np.array([[0, 1]]))
    exposure.add(np.array([[0, 2], [0, 3]]))
    got = exposure.figures(np.array([8, 4, 2, 0]), users=8)
    assert got["coverage"] == 1.0
    assert got["novelty"] == pytest.approx((3 * 0 + 1 + 2 + 3) / 6)
    assert got["popularity"] == pytest.approx((3 * 7 + 5 + 3 + 1) / 8 / 6)
    assert got["gini"] == pytest.approx((-3 * 1 - 1 * 1 + 1 * 1 + 3 * 3) / (4 * 6))
    assert got["intra_list_distance"] == pytest.approx((1 + 1 - np.sqrt(0.5)) / 2)


def test_without_vectors_there_is_no_distance():
    for vectors in (None, np.zeros((2, 3), np.float32), np.zeros((2, 0), np.float32)):
        exposure = Exposure(2, vectors)
        exposure.add(np.array([[0, 1]]))
        assert set(exposure.figures(np.array([1, 1]), 1)) == {"coverage", "novelty", "popularity", "gini"}


def test_category_vectors_say_which_categories_an_item_has():
    items = [CatalogItem("a", "A", ("y", "x")), CatalogItem("b", "B", ()), CatalogItem("c", "C", ("z",))]
    assert category_vectors(items, ("x", "y", "z")).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
