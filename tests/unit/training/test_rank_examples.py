"""What the ranking network is taught."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.training.models import facts, trained
from training.dataset import History
from training.rank_examples import Examples, candidates_of, gather_examples
from training.splits import Case, LeaveOneOut
from training.user_log import Exposures


class Log:
    """Users who took items one after the other, a day apart; as much of prepared data as is asked for."""

    def __init__(self, rows, shown=()):
        self.rows, self.shown = rows, shown

    def histories(self):
        for user, items in enumerate(self.rows):
            times = 1_000_000 + 86_400 * np.arange(len(items))
            yield History(f"u{user}", np.array(items, np.int32), times, np.full(len(items), 2, np.uint8))

    def exposures(self):
        yield from self.shown


def examples(some, log, seed=1) -> Examples:
    model = trained(some)
    found = gather_examples(some, log, LeaveOneOut(), model.model, model.items, seed=seed)
    assert found is not None
    return found


@pytest.fixture
def log():
    rng = np.random.default_rng(1)
    return Log([rng.permutation(np.arange(1, 31))[:14] for _ in range(20)])


def test_negatives_are_candidates_that_the_user_had_not_taken(log):
    found = examples(facts(30, ranker={"negatives": 5}), log)
    by_time = {}
    for history in log.histories():
        for at in range(1, len(history) - 2):
            by_time.setdefault((int(history.items[at]), int(history.times[at])), []).append(
                history.items[:at]
            )
    for items, time in zip(found.items, found.time, strict=True):
        befores = by_time[int(items[0]), int(time)]
        assert any(not np.isin(items, before).any() for before in befores)
        assert items[0] not in items[1:]


def test_an_item_that_nobody_took_or_that_came_later_is_no_negative(log):
    some = facts(30, ranker={"negatives": 5})
    untaken, later = 3, 4
    log.rows = [[item for item in row if item not in (untaken, later)] for row in log.rows]
    both = set(examples(some, log).items[:, 1:].ravel().tolist())
    assert {untaken, later} <= both
    had, times = some.items.had.copy(), some.item_times.copy()
    had[untaken], times[later] = False, 2_000_000_000
    careful = dataclasses.replace(some, items=dataclasses.replace(some.items, had=had), item_times=times)
    assert {untaken, later}.isdisjoint(examples(careful, log).items[:, 1:].ravel().tolist())


def test_an_item_is_no_candidate_before_it_is_published(log):
    some = facts(30, ranker={"negatives": 5})
    soon = np.where(np.arange(31) > 20, 2_000_000_000, 0)
    found = examples(dataclasses.replace(some, published=soon), log)
    assert len(found)
    assert found.items.max() <= 20


def test_what_was_shown_and_passed_over_comes_first(log):
    [first, *_] = log.histories()
    passed = [item for item in range(1, 31) if item not in first.items][:2]
    time = first.times[5]
    shown = Exposures("u0", np.array(passed, np.int32), np.array([time - 60] * 2), np.zeros(2, np.int64))
    log.shown = [shown]
    found = examples(facts(30, ranker={"negatives": 5}), log)
    assert found.shown == 2
    row = next(
        items
        for items, at in zip(found.items, found.time, strict=True)
        if items[0] == first.items[5] and at == time and set(passed) <= set(items.tolist())
    )
    assert set(row[1:3].tolist()) == set(passed)


def test_where_fewer_items_are_left_than_candidates_what_the_user_had_is_marked_as_none():
    scores = np.array([[5.0, 4.0, 3.0, 2.0]], np.float32)
    user = History("u", np.array([1, 3], np.int32), np.array([1, 2]), np.ones(2, np.uint8))
    published = np.array([0, 9, 0, 9])
    for time, left in ((9, [2, 4]), (8, [])):
        case = Case(user, np.array([2], np.int32), time)
        found, real = candidates_of(scores, [case], published, 3)
        assert found[real].tolist() == left
        assert len(set(found[0].tolist())) == 3
