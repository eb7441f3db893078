"""A model whose items lie in clusters, an index over them, and the exact answer to a query: for the tests
beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from tests.unit.training.models import facts, trained
from training.cold_items import ItemVectors
from training.index import Index, build_index, lifts_at
from training.search import Query
from training.serving import Served

CATEGORIES = tuple(f"c{i}" for i in range(6))
NOW = 1_700_000_000
RARE = 5
"""The category of every 97th item, wherever it lies."""


def catalogue(count: int) -> tuple[CatalogItem, ...]:
    """Category 0 to 3 by number, 4 of every third one as well, `RARE` of a few, none of every eleventh."""

    def own(i: int) -> tuple[str, ...]:
        if i % 97 == 0:
            return (CATEGORIES[RARE],)
        if i % 11 == 0:
            return ()
        return (CATEGORIES[i % 4], CATEGORIES[4]) if i % 3 == 0 else (CATEGORIES[i % 4],)

    return tuple(CatalogItem(f"i{i}", f"Title {i}", own(i)) for i in range(count))


def clustered(count: int, width: int, seed: int = 1, clusters: int = 40) -> NDArray[np.float32]:
    """float32 `[count + 1, width]` in clusters of Zipf's sizes; row 0 is padding."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, clusters + 1)
    own = rng.choice(clusters, count, p=share / share.sum())
    vectors = rng.normal(size=(clusters, width))[own] + 0.5 * rng.normal(size=(count, width))
    return np.concatenate([np.zeros((1, width)), vectors]).astype(np.float32)


def model_of(count: int, *, plain: bool = False, seed: int = 1, **tables: Any) -> Any:
    """With levels, lifts and items of the future, unless it is `plain`."""
    behaviour = {} if plain else {"freshness": {"half_life_days": 2, "weight": 3}}
    some = facts(count, behaviour=behaviour, **tables)
    rng = np.random.default_rng(seed)
    levels = np.zeros(count + 1, np.float32)
    if not plain:
        levels[1:][rng.random(count) < 0.2] = 1.5
        times = np.concatenate([[0], NOW - rng.integers(0, 100, count) * 86_400])
        later = np.concatenate([[0], rng.choice([0, 0, 0, NOW + 1_000], count)])
        some = dataclasses.replace(some, item_times=times, published=later)
    done = trained(some, seed=seed, ranker="ranker" in tables)
    vectors = clustered(count, some.config.model.width, seed)
    return dataclasses.replace(done, items=ItemVectors(vectors, levels))


def index_of(model: Any, **given: Any) -> Index:
    freshness = model.facts.config.behaviour.freshness
    lifts = lifts_at(freshness, NOW, model.facts.item_times)
    narrow = given.pop("narrow", 64)
    index = build_index(model.items.vectors, model.items.levels, lifts, time=NOW, **given)
    return dataclasses.replace(index, narrow=narrow)


def asked(
    vectors: NDArray[np.float32], excluded: Any = None, allowed: Any = None, time: int = NOW
) -> dict[str, NDArray[Any]]:
    """A query by catalogue indices: excluded ones per request, allowed categories `[B, C]`."""
    rows = len(vectors)
    return {
        "vectors": vectors,
        "time": np.full((rows, 1), time, np.int64),
        "excluded": [[] for _ in range(rows)] if excluded is None else excluded,
        "allowed": np.ones((rows, len(CATEGORIES) + 1), bool) if allowed is None else np.array(allowed),
    }


def found(served: Served, query: dict[str, Any]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What the graph finds: catalogue indices and scores `[B, P]`, 0 and -inf for nothing."""
    row_of = np.zeros(served.items.max() + 1, np.int64)
    row_of[served.items] = np.arange(len(served.items))
    row_of[0] = 0
    pairs = [(b, row_of[i]) for b, some in enumerate(query["excluded"]) for i in some]
    graph = Query(
        tf.constant(query["vectors"]),
        tf.constant(query["time"]),
        tf.constant(np.array(pairs, np.int64).reshape(-1, 2)),
        tf.constant(query["allowed"]),
    )
    top, rows, _ = tf.function(served.search)(graph)
    return np.where(top > -np.inf, served.items[rows.numpy()], 0), top.numpy()


def exact(model: Any, items: Any, query: dict[str, Any]) -> NDArray[np.float32]:
    """The score of every item `[B, N + 1]`, -inf where it must not be returned; worked out item by item."""
    scores = query["vectors"] @ model.items.vectors.T + model.items.levels
    scores = scores + lifts_at(
        model.facts.config.behaviour.freshness, int(query["time"][0, 0]), model.facts.item_times
    )
    for row, mask in enumerate(query["allowed"]):
        wanted = {CATEGORIES[i] for i in range(len(CATEGORIES)) if mask[i]}
        for i, item in enumerate(items, start=1):
            passes = bool(wanted & set(item.categories)) or (mask[-1] and not item.categories)
            if not (mask.all() or passes) or model.facts.published[i] > query["time"][row, 0]:
                scores[row, i] = -np.inf
        scores[row, [0, *query["excluded"][row]]] = -np.inf
    return scores


def users(count: int, width: int, seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
