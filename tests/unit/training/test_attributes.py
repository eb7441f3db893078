"""A user of whom nothing is known but attributes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.schema import feature_key
from tests.unit.training.models import config
from training.baselines import count
from training.dataset import History, open_prepared
from training.facts import gather_facts
from training.splits import Case, LeaveOneOut
from training.train import ModelRanker, Trainer
from training.user_features import vocabulary

SPLIT = LeaveOneOut()


def test_the_page_of_a_user_without_a_history_follows_their_attributes(make_prepared, tmp_path):
    rng = np.random.default_rng(2)
    groups = {"north": np.arange(12), "south": np.arange(12, 24)}
    log, countries = {}, []
    for user in range(60):
        country = "north" if user % 2 else "south"
        # Everybody begins with the same item of theirs, and never comes back to it.
        first, *others = groups[country]
        items = [first, *rng.permutation(others)[:5]]
        log[f"u{user:02}"] = [(f"item-{item:02}", 1000 * user + 60 * at) for at, item in enumerate(items)]
        countries.append(country)
    prepared = make_prepared(log)
    users = pa.table({"user_id": sorted(log), "country": countries})
    pq.write_table(users, prepared.folder / "users.parquet")
    prepared = open_prepared(prepared.folder)
    settings = config(
        model={"user_attributes": True, "text": "none", "layers": 1, "dropout": 0.1},
        training={"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "warmup_steps": 4},
    )
    counts = count((SPLIT.training_part(h) for h in prepared.histories()), len(prepared.items))
    facts = gather_facts(settings, prepared, counts, tmp_path / "cache")
    training = Trainer(facts, prepared, SPLIT, counts, 1)
    training.run(tmp_path / "c.npz", lambda *_: None, lambda *_: None)
    nothing = np.zeros(0, np.int32)
    for country, own in groups.items():
        features = np.array([feature_key("country", country)])
        newcomer = History(
            "new", nothing, nothing.astype(np.int64), nothing.astype(np.uint8), features=features
        )
        [scores] = ModelRanker(training.model, facts).scores([Case(newcomer, np.array([1]), 100_000)])
        assert scores.argmax() == own[0], country


def test_values_of_few_users_count_as_unknown_and_numbers_are_binned():
    known = vocabulary(
        {"town": ["big"] * 9 + ["small"] * 2, "age": [str(20 + i % 20 * 2) for i in range(200)]}
    )
    town = known.index(np.array([feature_key("town", "big"), feature_key("town", "small")]))
    assert town.tolist() == [1, 0]
    ages = known.index(np.array([feature_key("age", str(age)) for age in (20, 21, 57, 99)]))
    assert ages[0] == ages[1] != ages[2]
    assert ages[3] == 0
