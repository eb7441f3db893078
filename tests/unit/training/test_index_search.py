"""Candidates from an inverted file, against the score of every item worked out one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.indexed import (
    CATEGORIES,
    NOW,
    RARE,
    asked,
    catalogue,
    clustered,
    exact,
    found,
    index_of,
    model_of,
    users,
)  # fmt: skip
from training.cold_items import ItemVectors
from training.index_search import InvertedSearch
from training.serving import Served

N, D, POOL = 3_000, 16, 20
ITEMS = catalogue(N)


@pytest.fixture(scope="module")
def model():
    return model_of(N)


@pytest.fixture(scope="module")
def served(model):
    return with_index(model, lists=64, probes=8)


def with_index(model, items=ITEMS, pool=POOL, **given):
    return Served(model, items, CATEGORIES, page_size=pool, index=index_of(model, **given))


def best_of(scores, count=POOL):
    """The best scores of each row, best first."""
    return -np.sort(-scores, axis=1)[:, :count]


def mask(*numbers):
    return [i in numbers for i in range(len(CATEGORIES) + 1)]


def test_with_all_lists_probed_the_answer_is_the_exact_one(model):
    query = asked(users(4, D), excluded=[[], [1, 2, 3], [], []])
    got, top = found(with_index(model, lists=64, probes=64), query)
    scores = exact(model, ITEMS, query)
    assert top == pytest.approx(best_of(scores), abs=1e-4)
    assert np.take_along_axis(scores, got, axis=1) == pytest.approx(top, abs=1e-4)


def test_a_few_lists_hold_most_of_the_best_and_their_scores_are_right(model, served):
    query = asked(users(32, D))
    got, top = found(served, query)
    scores = exact(model, ITEMS, query)
    assert np.take_along_axis(scores, got, axis=1) == pytest.approx(top, abs=1e-4)
    assert (np.diff(top, axis=1) <= 0).all()
    recall = (top >= best_of(scores)[:, -1:] - 1e-4).mean()
    assert 0.9 < recall < 1  # not all of it, or the lists were not what was looked at
    assert all(len(set(row)) == POOL for row in got.tolist())


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("narrow", [0, N])
def test_whatever_the_lists_hold_the_scores_are_float32_and_the_filters_exact(model, storage, narrow):
    allowed = [mask(*range(7)), mask(1), mask(0, 4), mask(6)]
    excluded = [list(range(1, 60, 2)), [], list(range(1, 400)), []]
    query = asked(users(4, D), excluded, allowed)
    got, top = found(with_index(model, lists=64, probes=64, storage=storage, narrow=narrow), query)
    scores = exact(model, ITEMS, query)
    assert np.take_along_axis(scores, got, axis=1) == pytest.approx(top, abs=1e-4)
    share = (top >= best_of(scores)[:, -1:] - 1e-4).mean()
    assert share == 1 if storage == "float32" else share > 0.97


@pytest.mark.parametrize("narrow", [0, 64, 1_000])
@pytest.mark.parametrize("probes", [1, 4])
def test_a_filtered_page_is_never_short_while_matching_items_exist(model, narrow, probes):
    allowed = [mask(RARE), mask(6), mask(1), mask(), mask(*range(6)), mask(RARE, 6)]
    query = asked(users(6, D), allowed=allowed)
    got, top = found(with_index(model, lists=64, probes=probes, narrow=narrow), query)
    scores = exact(model, ITEMS, query)
    left = np.isfinite(scores).sum(axis=1)
    assert left.min() == 0
    assert sum(left >= POOL) > 3
    assert ((got > 0).sum(axis=1) == np.minimum(left, POOL)).all()
    assert np.isfinite(np.take_along_axis(scores, got, axis=1)[got > 0]).all()
    assert (got[top == -np.inf] == 0).all()


def test_a_narrow_filter_is_answered_exactly(model):
    query = asked(users(8, D), allowed=[mask(RARE)] * 8)
    got, top = found(with_index(model, lists=64, probes=1, narrow=64), query)
    assert top == pytest.approx(best_of(exact(model, ITEMS, query)), abs=1e-4)
    assert (got > 0).all()


def test_a_filter_whose_items_lie_far_from_the_user_is_answered_from_where_they_lie(model):
    # All of category 0 in one corner, and the user in the opposite one.
    vectors = clustered(N, D)
    own = np.array([0, *(CATEGORIES[0] in item.categories for item in ITEMS)], bool)
    vectors[own] += 20.0
    far = dataclasses.replace(model, items=ItemVectors(vectors, model.items.levels))
    query = asked(-np.abs(users(3, D)), allowed=[mask(0)] * 3)
    got, top = found(with_index(far, lists=64, probes=2, narrow=0), query)
    scores = exact(far, ITEMS, query)
    assert (got > 0).all()
    assert (top >= best_of(scores)[:, -1:] - 1e-4).mean() > 0.7


def test_excluding_the_best_leaves_the_next_best(model):
    served, vectors = with_index(model, lists=64, probes=64), users(2, D)
    order = np.argsort(-exact(model, ITEMS, asked(vectors)), axis=1, kind="stable")
    query = asked(vectors, excluded=[order[0, :300].tolist(), order[1, :1].tolist()])
    got, _ = found(served, query)
    assert got[0].tolist() == order[0, 300 : 300 + POOL].tolist()
    assert got[1].tolist() == order[1, 1 : 1 + POOL].tolist()


def test_more_lists_are_looked_through_when_all_of_the_first_is_excluded(model):
    served, vectors = with_index(model, lists=64, probes=1), users(1, D)
    first = sorted(set(found(with_index(model, lists=64, probes=1, pool=60), asked(vectors))[0][0].tolist()))
    query = asked(vectors, excluded=[first])
    got, top = found(served, query)
    assert (got > 0).all()
    assert not set(got[0].tolist()) & set(first)
    assert (top >= best_of(exact(model, ITEMS, query))[:, -1:] - 1e-4).mean() > 0.8


@pytest.fixture
def passes(monkeypatch):
    """Counts how often lists are looked at."""
    counter = tf.Variable(0)
    approximate = InvertedSearch._approximate

    def counting(self, vector, places):
        counter.assign_add(1)
        return approximate(self, vector, places)

    monkeypatch.setattr(InvertedSearch, "_approximate", counting)

    def counted(served, query):
        counter.assign(0)
        found(served, query)
        return int(counter)

    return counted


def test_a_request_that_excludes_many_needs_few_passes(model, passes):
    served, vectors = with_index(model, lists=64, probes=1), users(1, D)
    assert passes(served, asked(vectors)) <= 2
    assert passes(served, asked(vectors, excluded=[list(range(1, 150))])) <= 3


def test_a_filter_that_few_items_of_each_list_pass_needs_few_passes(model, passes):
    # Less than half an item of a list is rare: some forty lists are needed for a page.
    served = with_index(model, lists=64, probes=1, narrow=0)
    assert passes(served, asked(users(1, D), allowed=[mask(RARE)])) <= 7


def test_what_is_not_known_or_comes_twice_is_no_exclusion(model, passes):
    # A wider search would find more of the best: what is found is the same.
    served, vectors = with_index(model, lists=64, probes=1), users(16, D)
    for some, same in (([0] * 500, []), ([0, 9, 8, 9] * 100, [8, 9])):
        got, top = found(served, asked(vectors, excluded=[some] * 16))
        want, best = found(served, asked(vectors, excluded=[same] * 16))
        assert got.tolist() == want.tolist()
        assert top == pytest.approx(best)
    assert passes(served, asked(vectors[:1], excluded=[[0] * 2_000])) <= 2


def test_everything_excluded_is_an_empty_page(served):
    got, top = found(served, asked(users(2, D), excluded=[list(range(1, N + 1)), []]))
    assert (got[0] == 0).all()
    assert (top[0] == -np.inf).all()
    assert (got[1] > 0).all()


def test_new_items_are_found_as_long_as_they_are_lifted(model):
    served = with_index(model, lists=64, probes=8, user_scale=0.3)
    for days in (0, 1, 4):
        query = asked(0.3 * users(64, D), time=NOW + days * 86_400)
        got, top = found(served, query)
        assert (top >= best_of(exact(model, ITEMS, query))[:, -1:] - 1e-4).mean() > 0.85, days
    new = model.facts.item_times[1:] > NOW - 4 * 86_400
    assert new[got - 1].mean() > 3 * new.mean()  # or lifts would not be what this is about


def test_an_item_of_the_future_is_found_when_it_is_published(model):
    served, vectors = with_index(model, lists=64, probes=64), users(1, D)
    late = set(np.flatnonzero(model.facts.published > NOW).tolist())
    now, _ = found(served, asked(vectors))
    then, _ = found(served, asked(vectors, time=NOW + 2_000))
    assert late.isdisjoint(now[0].tolist())
    assert late & set(then[0].tolist())


def test_a_request_is_answered_alike_whatever_its_batch(served):
    allowed = [mask(*range(7)), mask(RARE), mask(1, 6), mask(*range(7))]
    excluded = [[], list(range(1, 50)), [7], list(range(1, 900))]
    together, _ = found(served, asked(users(4, D), excluded, allowed))
    for row in range(4):
        alone, _ = found(served, asked(users(4, D)[[row]], [excluded[row]], [allowed[row]]))
        assert alone[0].tolist() == together[row].tolist()


def test_an_empty_batch_is_answered_with_an_empty_batch(served):
    assert found(served, asked(users(0, D)))[0].shape == (0, POOL)


def test_items_of_one_and_the_same_score_are_each_found_once():
    alike = model_of(N, plain=True)
    alike.items.vectors[1:] = 1.0
    got, top = found(with_index(alike, lists=64, probes=2), asked(np.ones((2, D), np.float32)))
    assert top == pytest.approx(np.full((2, POOL), D))
    assert all(len(set(row)) == POOL for row in got.tolist())


def test_fewer_items_than_a_page(model):
    small = model_of(7, plain=True)
    served = with_index(small, catalogue(7), lists=3, probes=2)
    got, _ = found(served, asked(users(2, D), excluded=[[], [4]]))
    assert sorted(got[0].tolist()) == [1, 2, 3, 4, 5, 6, 7]
    assert sorted(got[1].tolist()) == [0, 1, 2, 3, 5, 6, 7]


def test_nothing_known_of_a_user_gives_a_full_page(served):
    got, top = found(served, asked(np.zeros((1, D), np.float32)))
    assert (got > 0).all()
    assert np.isfinite(top).all()
