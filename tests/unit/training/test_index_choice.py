"""When there is an index, and how its recall is measured, raised, and found too low."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.training.indexed import CATEGORIES, NOW, catalogue, index_of, model_of, users
from training.dataset import History
from training.errors import TrainingError
from training.index_choice import Asked, best_scores, planned_index, recall_of, wants_index, with_recall
from training.model_config import IndexConfig
from training.serving import Served
from training.splits import Case

N, D, POOL, USERS = 2_000, 16, 20, 70
ITEMS = catalogue(N)


@pytest.fixture(scope="module")
def model():
    return model_of(N)


@pytest.fixture(scope="module")
def asked():
    """Users who had up to seven items."""
    rng, none = np.random.default_rng(8), np.zeros(0, np.int64)
    cases = []
    for user in range(USERS):
        items = rng.choice(np.arange(1, N + 1), user % 8, replace=False).astype(np.int32)
        times = np.full(len(items), NOW - 50)
        history = History("", items, times, np.ones(len(items), np.uint8), features=none)
        cases.append(Case(history, np.array([1], np.int32), NOW))
    return Asked(cases, users(USERS, D))


def graph(model, index):
    return Served(model, ITEMS, CATEGORIES, page_size=POOL, index=index)


def measured(model, asked, index):
    return recall_of(graph(model, index), model, asked, best_scores(model, asked, POOL))


def test_all_lists_have_a_recall_of_one_and_one_list_has_less(model, asked):
    assert measured(model, asked, index_of(model, lists=32, probes=32)) == 1
    assert 0.1 < measured(model, asked, index_of(model, lists=32, probes=1)) < 0.9


def test_the_exact_search_has_a_recall_of_one(model, asked):
    assert measured(model, asked, None) == 1


def test_recall_is_what_the_lists_that_are_there_allow(model, asked):
    # Half of the items are in no list: of all lists, half of the best are found.
    index = index_of(model, lists=32, probes=32)
    kept = np.where(index.items % 2 == 0, index.items, 0)
    found = measured(model, asked, dataclasses.replace(index, items=kept))
    assert 0.35 < found < 0.65


def test_what_must_not_be_returned_or_comes_twice_does_not_count(model, asked):
    served, best = graph(model, index_of(model, lists=32, probes=32)), best_scores(model, asked, POOL)
    search = served.search
    one = asked.cases[47].known.items[0]
    row = int(np.flatnonzero(served.items == one)[0])
    place = {
        "excluded": lambda found: found._replace(rows=found.rows * 0 + row),
        "twice": lambda found: found._replace(rows=found.rows[:, :1] + found.rows * 0),
    }
    only = Asked(asked.cases[47:48], asked.vectors[47:48])
    for case, wanted in (("excluded", 0), ("twice", 1 / POOL)):
        served.search = lambda query, change=place[case]: change(search(query))
        assert recall_of(served, model, only, best[47:48]) == pytest.approx(wanted), case


def test_lists_are_added_until_the_bound_is_reached(model, asked):
    index = index_of(model, lists=128, probes=1)
    served = graph(model, index)
    said = with_recall(served, index, model, asked, 0.8)
    assert 1 < said["probes"] <= 16
    assert served.search.probes == said["probes"]
    assert said["recall"] >= 0.8
    assert said | {"recall": 0, "probes": 0} == {
        "kind": "inverted", "lists": 128, "capacity": 20, "probes": 0, "storage": "float32", "recall": 0,
        "at": POOL, "bound": 0.8, "users": USERS,
    }  # fmt: skip
    fewer = dataclasses.replace(index, probes=said["probes"] - max(1, said["probes"] // 8))
    assert measured(model, asked, fewer) < 0.8
    enough = dataclasses.replace(index, probes=said["probes"])
    assert measured(model, asked, enough) == pytest.approx(said["recall"], abs=1e-4)


def test_an_index_that_finds_too_few_is_refused(model, asked):
    index = index_of(model, lists=32, probes=1)
    with pytest.raises(TrainingError, match=r"finds 0\.\d+ of the best 20 candidates with 4 of its 32 lists"):
        with_recall(graph(model, index), index, model, asked, 0.999)


def test_a_broken_index_is_refused(model, asked):
    index = index_of(model, lists=32, probes=4)
    broken = dataclasses.replace(index, means=index.means[::-1])
    with pytest.raises(TrainingError, match=r"index\.recall"):
        with_recall(graph(model, broken), broken, model, asked, 0.8)
    with_recall(graph(model, index), index, model, asked, 0.8)


def test_a_catalogue_gets_an_index_if_it_is_large_or_told_to(model, asked):
    auto, exact, inverted = (IndexConfig(kind=kind) for kind in ("auto", "exact", "inverted"))
    assert [wants_index(config, 10**6) for config in (auto, exact, inverted)] == [True, False, True]
    assert [wants_index(config, 10**4) for config in (auto, exact, inverted)] == [False, False, True]
    assert not wants_index(inverted, 1)


def test_an_index_is_planned_as_configured_and_for_the_newest_item(model, asked):
    config = IndexConfig(lists=16, probes=3, storage="int8")
    index = planned_index(config, model, asked, now=NOW + 10**6)
    assert (index.lists, index.probes, index.storage) == (16, 3, "int8")
    assert index.time == model.facts.item_times.max()
    assert planned_index(config, model, asked, now=NOW - 10**6).time == NOW - 10**6
    assert index.lifts.any()
