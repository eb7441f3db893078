from __future__ import annotations

import numpy as np
import pytest

from tests.unit.training import models
from training.baselines import count
from training.diversity_curve import SETTINGS, diversity_curve
from training.evaluate import evaluate
from training.exposure import category_vectors
from training.runs import cases_of
from training.splits import LeaveOneOut

SPLIT, ITEMS = LeaveOneOut(), 150


@pytest.fixture
def shop(make_prepared):
    """30 users of eight items each, of 150 in ten categories."""
    rng = np.random.default_rng(2)
    log = {
        f"user-{user:02}": [(f"item-{i:03}", 1000 + at) for at, i in enumerate(rng.permutation(ITEMS)[:8])]
        for user in range(30)
    }
    return make_prepared(log, {f"item-{i:03}": [str(i % 10)] for i in range(ITEMS)})


@pytest.mark.parametrize("ranker", [False, True])
def test_without_diversity_the_figures_are_those_of_the_evaluation(shop, ranker):
    counts = count((SPLIT.training_part(h) for h in shop.histories()), ITEMS)
    trained = models.trained(models.facts(ITEMS), ranker=ranker)
    categories = category_vectors(shop.items, shop.categories)
    points = diversity_curve(trained, cases_of(shop, SPLIT, "test"), 100, categories)
    plain, _ = evaluate(
        trained.judgeable, shop, SPLIT, "test",
        cutoffs=(10,), item_users=counts.item_users, users=counts.users, vectors=categories,
    )  # fmt: skip
    assert [point.diversity for point in points] == list(SETTINGS)
    first = points[0]
    assert 0 < first.ndcg == pytest.approx(plain.metrics["ndcg@10"])
    assert first.coverage == plain.metrics["coverage@10"]
    assert first.intra_list_distance == pytest.approx(plain.metrics["intra_list_distance@10"])
    assert points[-1].coverage != first.coverage


def test_where_vectors_are_categories_a_page_goes_from_one_of_them_to_ten(shop):
    trained = models.trained(models.facts(ITEMS))
    categories = category_vectors(shop.items, shop.categories)
    vectors = np.zeros_like(trained.items.vectors)
    vectors[1:, :10] = categories
    trained = models.replaced(trained, items=models.replaced(trained.items, vectors=vectors))
    points = diversity_curve(trained, cases_of(shop, SPLIT, "test"), ITEMS, categories)
    assert points[0].intra_list_distance < 0.1
    assert points[-1].intra_list_distance == pytest.approx(1.0)


def test_a_catalogue_without_categories_has_no_distance(shop):
    trained, nothing = models.trained(models.facts(ITEMS)), np.zeros((ITEMS, 0), np.float32)
    points = diversity_curve(trained, cases_of(shop, SPLIT, "test"), 100, nothing)
    assert {point.intra_list_distance for point in points} == {None}
