"""A small catalogue, requests to a graph that serves it, and a model that uses every input of theirs: for the
tests beside it."""

from __future__ import annotations

import dataclasses

import numpy as np

from features.catalog import CatalogItem
from features.schema import EventType, feature_key, item_key, item_keys, surface_key
from tests.unit.training.models import facts, trained
from training.cold_items import ItemVectors
from training.user_features import vocabulary

T, D, N = 8, 16, 30
CATEGORIES = ("comedy", "drama", "horror")
ITEMS = tuple(
    CatalogItem(
        f"i{i}", f"Title {i}", () if i == 29 else (CATEGORIES[i % 3],) + (("horror",) if i == 0 else ())
    )
    for i in range(N)
)
KEYS = item_keys(item.item_id for item in ITEMS)
UNKNOWN = item_key("not in this version")
ENCODED = ("history_keys", "history_times", "history_types", "request_time", "user_features")


def request(*histories, fresh=0, vectors=None, exclude=(), allowed=None):
    rows = len(histories)

    def padded(values, width):
        array = np.zeros((rows, width), np.int64)
        for row, keys in zip(array, values, strict=True):
            if len(keys):
                row[-len(keys) :] = keys
        return array

    return {
        "history_keys": padded(histories, T),
        "history_times": np.where(padded(histories, T) != 0, np.arange(T) + 1_600_000_000, 0),
        "history_types": np.where(padded(histories, T) != 0, EventType.CLICK, 0).astype(np.int32),
        "user_features": np.zeros((rows, 1), np.int64),
        "request_time": np.full((rows, 1), 1_700_000_000, np.int64),
        "user_vector": np.zeros((rows, D), np.float32) if vectors is None else np.float32(vectors),
        "user_vector_fresh": np.full((rows, 1), fresh, np.int32),
        "exclude_keys": padded(list(exclude) or [[]] * rows, max(map(len, exclude), default=0)),
        "allowed_categories": np.ones((rows, 4), bool) if allowed is None else np.array(allowed),
        "surface": np.zeros((rows, 1), np.int64),
        "diversity": np.zeros((rows, 1), np.float32),
    }


def answer(served, inputs):
    return {name: tensor.numpy() for name, tensor in served.recommend(**inputs).items()}


def varied(rows=12, seed=5):
    """Requests that use every input."""
    rng = np.random.default_rng(seed)
    histories = [rng.choice(KEYS, rng.integers(0, 2 * T), replace=False)[-T:] for _ in range(rows)]
    exclude = [rng.choice(KEYS, rng.integers(0, 6), replace=False).tolist() for _ in range(rows)]
    inputs = request(*histories, exclude=exclude)
    real = inputs["history_keys"] != 0
    times = np.sort(rng.integers(1_600_000_000, 1_700_000_000, (rows, T)), axis=1)
    inputs["history_times"] = np.where(real, times, 0)
    inputs["history_types"] = np.where(real, rng.integers(1, 11, (rows, T)), 0).astype(np.int32)
    inputs["request_time"] = rng.integers(1_700_000_000, 1_700_900_000, (rows, 1))
    inputs["user_features"] = np.array([[feature_key("c", v), 0] for v in rng.choice(["x", "y", "?"], rows)])
    inputs["surface"] = np.array([[surface_key(v)] for v in rng.choice(["home", "search", ""], rows)])
    inputs["diversity"] = (np.arange(rows)[:, None] % 3 / 2.0).astype(np.float32)
    inputs["allowed_categories"][::4] = [True, False, True, False]
    return inputs


def full(ranker, seed=2, **behaviour):
    """A model that uses every input."""
    some = facts(
        N,
        ranker={"candidates": 100, "recent": 4},
        behaviour={
            "event_weights": {"VIEW": 0, "PURCHASE": 4},
            "interest_half_life_days": 100,
            "freshness": {"half_life_days": 2, "weight": 1.5},
            **behaviour,
        },
    )
    rng = np.random.default_rng(seed)
    some = dataclasses.replace(
        some,
        vocabulary=vocabulary({"c": ["x"] * 5 + ["y"] * 5, "d": ["z"] * 5}),
        attributes=("c", "d"),
        surfaces=np.sort([surface_key("home"), surface_key("search")]),
        item_users=rng.integers(1, 99, N),
        item_times=np.concatenate([[0], rng.choice([0, 1_699_990_000, 1_700_000_000], N)]),
        published=np.concatenate([[0], rng.choice([0, 0, 1_700_500_000], N)]),
    )
    model = trained(some, seed=seed, ranker=ranker)
    for weight in model.model.weights:
        if "time_bias" in weight.path or "attributes" in weight.path:
            weight.assign(rng.normal(size=weight.shape))
    levels = np.where(rng.random(N + 1) < 0.3, 0.7, 0.0).astype(np.float32)
    return dataclasses.replace(model, items=ItemVectors(model.items.vectors, levels))
