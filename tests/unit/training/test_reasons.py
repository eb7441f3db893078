"""Which item of a history stands for a recommendation, and how it is measured whether it does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training import models
from training.dataset import History
from training.offline import Offline, Request
from training.reason_trial import _judged, _losses, try_reasons
from training.reasons import RECENCY, reasons
from training.run_pages import ReasonTrial
from training.splits import Case

# Items 1 to 4; 1 and 4 point the same way, 3 nearly so.
VECTORS = tf.constant([[0, 0], [1, 0], [0, 1], [3, 0.5], [2, 0]], tf.float32)


def chosen(history, recommended, **options):
    found = reasons(
        VECTORS, tf.constant([history], tf.int32), tf.constant([recommended], tf.int32), **options
    )
    return found.numpy()[0].tolist()


def test_the_reason_is_the_item_that_points_the_same_way_whatever_its_length():
    assert chosen([0, 1, 2, 3], [4], recency=0.0) == [1]
    assert chosen([0, 2, 1, 3], [4], recency=0.0) == [2]


def test_an_item_that_may_return_is_not_the_reason_for_itself_unless_there_is_no_other():
    assert chosen([0, 1, 2, 4], [4], recency=0.0) == [1]
    assert chosen([0, 0, 0, 4], [4]) == [3]


def test_of_equals_the_oldest_is_the_reason_without_recency_and_the_newest_with_it():
    assert chosen([1, 4, 1], [4], recency=0.0) == [0]
    assert chosen([1, 4, 1], [4]) == [2]


def test_a_little_less_like_it_is_the_reason_if_it_is_much_more_recent():
    lost = float(1 - 3 / np.hypot(3, 0.5))  # of item 3 against item 1
    events = int(lost / RECENCY) + 1
    assert chosen([1, *[2] * events, 3], [4]) == [events + 1]
    assert chosen([1, 3], [4], recency=lost / 2) == [0]


def test_a_history_without_items_gives_the_position_of_padding():
    assert chosen([0, 0, 0], [1, 2]) == [0, 0]


def history(*items):
    count = len(items)
    return History("u", np.array(items, np.int32), 1000 + 60 * np.arange(count), np.full(count, 8, np.uint8))


def case(*items):
    return Case(history(*items), np.array([12], np.int32), 1000 + 60 * len(items))


@pytest.fixture(scope="module")
def trained():
    return models.trained(models.facts(12, model={"dropout": 0.0}), ranker=True)


def test_what_an_item_is_worth_is_what_the_score_loses_when_the_item_was_never_there(trained):
    asked = [case(1, 2, 3, 4, 5, 6, 7, 8, 9), case(3, 1, 3, 2)]
    page = np.array([[10, 11], [5, 7]], np.int32)
    losses = _losses(trained, asked, page)
    assert losses.shape == (2, 2, 8)
    offline = Offline(trained, [], 5)

    def score(items, time, item):
        kept = np.isin(range(len(items)), range(len(items) - 8, len(items)))  # what the encoder sees
        seen = history(*items).where(kept)
        return lambda gone: offline.score_of(Request(seen.where(seen.items != gone), time), item)

    for user, (each, items) in enumerate(zip(asked, page, strict=True)):
        events = each.known.items.tolist()
        for k, item in enumerate(items):
            of = score(events, each.time, item)
            for position, known in enumerate(([0] * 8 + events)[-8:]):
                newest = known and known not in (([0] * 8 + events)[-8:])[position + 1 :]
                if newest:
                    assert losses[user, k, position] == pytest.approx(of(0) - of(known), abs=2e-5)
                else:
                    assert np.isnan(losses[user, k, position])


def test_the_item_that_costs_most_beats_all_others_and_one_by_lot_beats_half(trained):
    rng = np.random.default_rng(1)
    asked = [case(*rng.permutation(11)[:7] + 1) for _ in range(60)]
    trial = try_reasons(trained, asked)
    assert (trial.users, trial.recommended) == (60, 5)
    by_name = {choice.name: choice for choice in trial.choices}
    best = by_name.pop("the one that costs most")
    assert (best.share, best.exact) == (1.0, 1.0)
    for choice in by_name.values():
        assert choice.low <= choice.share <= choice.high
        assert 0.0 < choice.share < 1.0
    assert trial == try_reasons(trained, asked)
    assert ReasonTrial.from_json(dataclasses.asdict(trial)) == trial


def test_a_choice_is_judged_against_the_mean_of_all_others_with_ties_half():
    gone = np.nan  # an older event of an item that comes again, or padding
    losses = np.array([[[gone, 0.5, 0.1, 0.5, 0.2]], [[gone, gone, -0.3, -0.2, 0.1]]])
    found = _judged("some", np.array([[1], [3]]), losses)
    assert found.share == pytest.approx(((2 + 0.5) / 3 + 1 / 2) / 2)
    assert found.exact == 0.5
    assert _judged("best", np.array([[3], [4]]), losses).exact == 1.0


def test_users_with_short_histories_are_left_out(trained):
    asked = [case(1, 2, 3, 4), case(1, 1, 1, 1, 1), case(1, 2, 3, 4, 5)]
    assert try_reasons(trained, asked).users == 1
    assert try_reasons(trained, asked[:2]) is None
