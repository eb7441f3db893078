"""The served graph with every input in use, against the trained model and against itself."""

from __future__ import annotations

import numpy as np
import pytest

from features.schema import EventType, feature_key, surface_key
from tests.unit.training.asking import CATEGORIES, ITEMS, KEYS, answer, full, request, varied
from training.golden import requests_of
from training.offline import Offline
from training.serving import Served


@pytest.mark.parametrize("ranker", [False, True])
def test_the_graph_answers_as_the_model_does_request_by_request(ranker):
    model = full(ranker)
    served, inputs = Served(model, ITEMS, CATEGORIES, page_size=10), varied()
    got = answer(served, inputs)
    offline = Offline(model, ITEMS, 10)
    golden = {f"in:{name}": array for name, array in inputs.items()}
    for row, asked in enumerate(requests_of(golden, KEYS, CATEGORIES)):
        page = offline.page(asked)
        count = len(page.items)
        assert got["item_keys"][row, :count].tolist() == KEYS[page.items - 1].tolist(), row
        assert got["scores"][row, :count] == pytest.approx(page.scores, abs=1e-4)
        assert (got["item_keys"][row, count:] == 0).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"surface": np.full((12, 1), surface_key("search"))},
        {"request_time": np.full((12, 1), 1_702_000_000)},
        {"user_features": np.full((12, 2), feature_key("d", "z"))},
        {"diversity": np.full((12, 1), 0.9, np.float32)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_input_counts(changed):
    served, inputs = Served(full(True), ITEMS, CATEGORIES, page_size=10), varied()
    before, after = answer(served, inputs), answer(served, {**inputs, **changed})
    assert before["item_keys"].tolist() != after["item_keys"].tolist()


def test_an_event_of_a_type_that_does_not_count_changes_nothing():
    served, inputs = Served(full(True), ITEMS, CATEGORIES, page_size=10), varied()
    views = inputs["history_types"] == EventType.VIEW
    assert views.any()
    without = {**inputs, "history_keys": np.where(views, 0, inputs["history_keys"])}
    got, want = answer(served, inputs), answer(served, without)
    assert got["item_keys"].tolist() == want["item_keys"].tolist()
    assert got["scores"] == pytest.approx(want["scores"], abs=1e-6)


def test_the_scores_of_a_ranking_network_are_probabilities():
    got = answer(Served(full(True), ITEMS, CATEGORIES, page_size=10), varied())["scores"]
    assert ((got >= 0) & (got <= 1)).all()


def test_an_item_is_not_recommended_before_it_is_published():
    model = full(False)
    late = set(KEYS[model.facts.published[1:] > 1_700_000_001].tolist())
    served, inputs = Served(model, ITEMS, CATEGORIES, page_size=30), request(KEYS[[1]])
    inputs["user_features"] = np.zeros((1, 2), np.int64)
    pages = []
    for time in (1_700_000_001, 1_701_000_000):
        inputs["request_time"][:] = time
        pages.append(set(answer(served, inputs)["item_keys"][0].tolist()))
    assert late
    assert pages[0].isdisjoint(late)
    assert late <= pages[1]
