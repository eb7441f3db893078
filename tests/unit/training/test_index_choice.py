"""When there is an index, and how its recall is measured, raised, and found too low."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.indexed import CATEGORIES, NOW, catalogue, index_of, model_of, users
from training import index_choice
from training.dataset import History
from training.errors import TrainingError
from training.index_choice import index_time, planned_index, wants_index, with_recall
from training.index_kinds import Kinds
from training.index_recall import Asked, Best, Recall, asked_of, best_scores, filters_of, recall_of
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
    return Asked(cases, users(USERS, D), *filters_of(cases, ITEMS, CATEGORIES))


def demanding(recall, kind="inverted"):
    return IndexConfig(kind=kind, recall=recall)


def graph(model, index):
    return Served(model, ITEMS, CATEGORIES, page_size=POOL, index=index)


def measured(model, asked, index):
    """The lower recall of both."""
    return min(both(model, asked, index))


def both(model, asked, index):
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
    found = both(model, asked, dataclasses.replace(index, items=kept))
    assert 0.35 < found.plain < 0.65
    assert 0 < found.filtered < 0.95


def test_what_must_not_be_returned_or_comes_twice_does_not_count(model, asked):
    served, best = graph(model, index_of(model, lists=32, probes=32)), best_scores(model, asked, POOL)
    search = served.search
    one = asked.cases[47].known.items[0]
    row = int(np.flatnonzero(served.items == one)[0])
    place = {
        "excluded": lambda found: found._replace(rows=found.rows * 0 + row),
        "twice": lambda found: found._replace(rows=found.rows[:, :1] + found.rows * 0),
    }
    only = Asked(asked.cases[47:48], asked.vectors[47:48], asked.filters[47:48], asked.members)
    best = Best(*(scores[47:48] for scores in best))
    for case, wanted in (("excluded", 0), ("twice", 1 / POOL)):
        served.search = lambda query, change=place[case]: change(search(query))
        assert recall_of(served, model, only, best).plain == pytest.approx(wanted), case


def test_lists_are_added_until_the_bound_is_reached(model, asked):
    index = index_of(model, lists=128, probes=1)
    served = graph(model, index)
    said = with_recall(served, index, model, asked, demanding(0.8))
    assert 1 < said["probes"] <= 16
    assert served.search.probes == said["probes"]
    assert min(said["recall"], said["recall_filtered"]) >= 0.8
    assert said | {"recall": 0, "recall_filtered": 0, "probes": 0} == {
        "kind": "inverted", "lists": 128, "capacity": 20, "probes": 0, "storage": "float32", "recall": 0,
        "recall_filtered": 0, "at": POOL, "bound": 0.8, "users": USERS,
    }  # fmt: skip
    fewer = dataclasses.replace(index, probes=said["probes"] - max(1, said["probes"] // 8))
    assert measured(model, asked, fewer) < 0.8
    enough = dataclasses.replace(index, probes=said["probes"])
    got = both(model, asked, enough)
    assert got == pytest.approx((said["recall"], said["recall_filtered"]), abs=1e-4)


def test_an_index_that_finds_too_few_is_refused(model, asked):
    index = index_of(model, lists=32, probes=1)
    with pytest.raises(
        TrainingError, match=r"finds 0\.\d+ of the best 20 candidates( of a category)? with 4 of its 32 lists"
    ):
        with_recall(graph(model, index), index, model, asked, demanding(0.999))


def test_an_index_that_nobody_insisted_on_gives_way_to_the_exact_search(model, asked):
    index = index_of(model, lists=32, probes=1)
    said = with_recall(graph(model, index), index, model, asked, demanding(0.999, kind="auto"))
    assert (said["kind"], said["bound"]) == ("exact", 0.999)
    assert 0.1 < said["refused_recall"] < 0.999


def test_a_recall_is_never_said_to_be_more_than_it_is(model, asked, monkeypatch):
    monkeypatch.setattr(index_choice, "recall_of", lambda *_: Recall(0.94999, 0.57))
    index = index_of(model, lists=32, probes=1)
    said = with_recall(graph(model, index), index, model, asked, demanding(0.5))
    assert (said["recall"], said["recall_filtered"]) == (0.9499, 0.57)
    with pytest.raises(TrainingError, match=r"finds 0\.57 of .* of a category"):
        with_recall(graph(model, index), index, model, asked, demanding(0.95))
    said = with_recall(graph(model, index), index, model, asked, demanding(0.58, kind="auto"))
    assert said["refused_recall"] == 0.57


@pytest.mark.parametrize("method", ["members", "lists"])
def test_an_index_whose_filter_finds_nothing_is_refused(model, asked, monkeypatch, method):
    narrow = N if method == "members" else 0
    index = index_of(model, lists=32, probes=32, narrow=narrow)
    with_recall(graph(model, index), index, model, asked, demanding(0.8))
    broken = {
        "members": lambda self, kinds: tf.zeros((0,), tf.int32),
        "lists": lambda self, categories: tf.zeros((32,), tf.bool),
    }
    monkeypatch.setattr(Kinds, method, broken[method])
    with pytest.raises(TrainingError, match=r"finds 0\.0 of the best 20 candidates of a category"):
        with_recall(graph(model, index), index, model, asked, demanding(0.8))


def test_what_lies_outside_of_the_category_does_not_count(model, asked, monkeypatch):
    index = index_of(model, lists=32, probes=32, narrow=0)
    monkeypatch.setattr(Kinds, "allowed", lambda self, categories: tf.ones(self._sizes.shape, tf.bool))
    found = both(model, asked, index)
    assert found.plain == 1
    assert found.filtered < 0.7


def test_users_are_asked_under_the_first_category_of_their_last_item(asked):
    for case, category in zip(asked.cases, asked.filters.tolist(), strict=True):
        own = ITEMS[case.known.items[-1] - 1].categories if len(case.known) else ()
        assert category == (CATEGORIES.index(own[0]) if own else -1)
    assert (asked.filters == -1).any()
    assert set(asked.members) == set(asked.filters.tolist()) - {-1}
    for category, items in asked.members.items():
        wanted = [i for i, item in enumerate(ITEMS, 1) if CATEGORIES[category] in item.categories]
        assert items.tolist() == wanted


class Log:
    """Prepared data of users who had item u % N + 1 at second u."""

    def __init__(self, count):
        self.count = count

    def histories(self):
        for user in range(self.count):
            yield History(
                f"u{user}", np.array([user % N + 1], np.int32), np.array([NOW - 2_500 + user]),
                np.ones(1, np.uint8), features=np.zeros(0, np.int64),
            )  # fmt: skip


@pytest.mark.parametrize(("count", "users"), [(3, 3), (1_000, 1_000), (1_999, 1_000), (5_000, 1_000)])
def test_users_from_all_over_are_asked_and_nobody_before_the_index_was_made(model, count, users):
    asked = asked_of(Log(count), model, ITEMS, CATEGORIES, NOW)
    own = [int(case.known.user_id[1:]) for case in asked.cases]
    assert len(asked.cases) == len(asked.vectors) == len(asked.filters) == users
    assert own[0] == 0
    assert own[-1] >= 0.8 * (count - 1)
    assert max(np.diff(own)) <= 2 * max(1, count / users) + 1
    assert [case.time for case in asked.cases] == [max(NOW, NOW - 2_499 + user) for user in own]


def test_a_broken_index_is_refused(model, asked):
    index = index_of(model, lists=32, probes=4)
    broken = dataclasses.replace(index, means=index.means[::-1])
    with pytest.raises(TrainingError, match=r"index\.recall"):
        with_recall(graph(model, broken), broken, model, asked, demanding(0.8))
    with_recall(graph(model, index), index, model, asked, demanding(0.8))


def test_a_catalogue_gets_an_index_if_it_is_large_or_told_to(model, asked):
    auto, exact, inverted = (IndexConfig(kind=kind) for kind in ("auto", "exact", "inverted"))
    assert [wants_index(config, 10**6) for config in (auto, exact, inverted)] == [True, False, True]
    assert [wants_index(config, 10**5 - 1) for config in (auto, exact, inverted)] == [False, False, True]
    assert wants_index(auto, 10**5)
    assert not wants_index(inverted, 1)


def test_an_index_is_planned_as_configured_and_for_the_newest_item(model, asked):
    config = IndexConfig(lists=16, probes=3, storage="int8")
    index = planned_index(config, model, asked, index_time(model, NOW + 10**6))
    assert (index.lists, index.probes, index.storage) == (16, 3, "int8")
    assert index.time == model.facts.item_times.max()
    assert index_time(model, NOW - 10**6) == NOW - 10**6
    assert index.lifts.any()
