"""Items held out of training, and how well they are found again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from training.baselines import count
from training.cold_trial import CATEGORIES, IDS, RANDOM, TEXT, cold_case, random_recall, try_cold_items
from training.config import Config
from training.dataset import History
from training.runs import Progress, Runs
from training.splits import Case
from training.warm_split import WarmItems, hold_out


def history(*items):
    return History(
        "u", np.array(items, np.int32), 10 * np.arange(len(items)), np.full(len(items), 8, np.uint8)
    )


def test_items_held_out_are_in_no_part_of_the_split():
    split = WarmItems((2, 5))
    user = history(1, 2, 3, 4, 5, 6, 2)
    assert split.training_part(user).items.tolist() == [1, 3]
    assert split.case(user, "validation").targets.tolist() == [4]
    test = split.case(user, "test")
    assert (test.known.items.tolist(), test.targets.tolist()) == ([1, 3, 4], [6])
    assert split.case(history(1, 2, 5, 3), "test") is None


def test_a_share_of_the_items_that_somebody_took_is_drawn_by_the_seed():
    users = np.array([0, *[1] * 40, 0], np.int64)
    first = hold_out(users, 0.1, 1)
    assert len(set(first.held_out)) == 4
    assert {1, 42}.isdisjoint(first.held_out)
    assert hold_out(users, 0.1, 1) == first
    assert hold_out(users, 0.1, 2) != first
    assert repr(hold_out(users, 0.1, 2)) != repr(first), "the fingerprint of a run goes by it"


def test_a_user_is_asked_for_what_was_held_out_from_all_they_did_with_the_rest():
    split = WarmItems((2, 5))
    case = cold_case(history(1, 5, 3, 2, 5), split)
    assert case.known.items.tolist() == [1, 3]
    assert case.targets.tolist() == [2, 5]
    assert case.time == 40
    assert cold_case(history(1, 3), split) is None
    assert cold_case(history(2, 5), split) is None


def test_a_page_by_lot_is_expected_to_hold_its_share_of_what_is_new():
    cases = [
        Case(history(*range(1, 1 + known)), np.arange(200, 200 + targets, dtype=np.int32), 0)
        for known, targets in ((50, 3), (100, 1))
    ]
    found = random_recall(cases, 250)
    assert found.micro == pytest.approx((3 * 50 / 200 + 50 / 150) / 4)
    assert found.per_user == pytest.approx((50 / 200 + 50 / 150) / 2)
    assert random_recall(cases, 130).micro == pytest.approx((3 * 50 / 80 + 1) / 4)


@pytest.fixture
def departments(make_prepared):
    """Everybody buys in one of two departments of 100 items, so the category alone says what is wanted."""
    rng = np.random.default_rng(3)
    log = {
        f"user-{user:03}": [
            (f"item-{department}-{item:03}", 1000 + 100 * at)
            for at, item in enumerate(rng.choice(100, 15, replace=False))
        ]
        for user in range(160)
        for department in ("ab"[user % 2],)
    }
    return make_prepared(log, {f"item-{d}-{i:03}": [d] for d in "ab" for i in range(100)})


def test_items_that_nobody_took_are_found_by_their_features_and_not_without(departments, tmp_path):
    config = Config.model_validate(
        {
            "data": {"name": "shop"},
            "model": {"width": 16, "heads": 1, "history": 10, "text": "none", "item_features": True},
            "training": {"epochs": 6, "learning_rate": 0.01, "warmup_steps": 4},
        }
    )
    runs = Runs(config, departments, tmp_path / "runs" / "shop", tmp_path / "cache")
    said: list[str] = []
    (trial,) = try_cold_items(runs, [1], Progress(), said.append)
    assert trial.held_out == 20
    taken = count(departments.histories(), 200).item_users
    assert trial.positives == taken[np.array(hold_out(taken, 0.1, 1).held_out) - 1].sum()
    assert TEXT not in trial.recalls
    found = {kind: recall.micro for kind, recall in trial.recalls.items()}
    assert found[CATEGORIES] > 1.3 * found[RANDOM]
    assert found[IDS] < 0.5 * found[RANDOM]
    text = (runs.folder / "cold-items.md").read_text()
    assert f"| {CATEGORIES} | {found[CATEGORIES]:.4f} |" in text
    assert f"{trial.positives:,} of {trial.users:,} users. Seed 1." in text
    saved = json.loads((runs.folder / "cold-items.json").read_text())
    assert saved["trials"][0]["recalls"][IDS]["micro"] == found[IDS]
    assert len(said) == 1
    assert try_cold_items(runs, [1], Progress(), said.append) == [trial], "trained once"
    assert len(said) == 1
    assert (tmp_path / "runs" / "shop-cold-items" / "seed-1" / "result.json").exists()
