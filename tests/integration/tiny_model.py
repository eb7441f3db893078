"""A SavedModel that keeps the tensor contract and builds in seconds: 50 items, random weights, no training.

Run as a program (`python -m tests.integration.tiny_model JSON`), so that no test process has to load
TensorFlow: JSON maps folders to variants, and an export of each is written, the way `training/export.py`
writes one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem, write_catalog
from features.schema import EventType, feature_key, item_keys, surface_key
from tests.integration.tiny_defects import Hoard, failing, most_opposite, slowed
from tests.integration.tiny_variant import (
    COUNTRIES,
    GOLDEN_TIME,
    ITEM_IDS,
    ITEMS,
    LIVE_SINCE,
    SURFACES,
    Variant,
)

EXCLUDED = 16
GOLDEN_ROWS = 16
CATEGORY_NAMES = ("drama", "comedy", "war")
BASE_WIDTH = 4
NOISE = 0.15
"""Standard deviation between the vectors of two seeds, whose own is 1: retraining changes little."""


def keys_of_items() -> NDArray[np.int64]:
    """Int64 `[ITEMS]`, ascending."""
    return item_keys(ITEM_IDS)


def category_names(variant: Variant) -> tuple[str, ...]:
    """One less than the variant has categories: the last is that of the items without one."""
    more = tuple(f"category-{number}" for number in range(len(CATEGORY_NAMES), variant.categories))
    return (*CATEGORY_NAMES, *more)[: variant.categories - 1]


def weights(variant: Variant) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Item vectors `[ITEMS, D]` and who is in which category `[ITEMS, C]`."""
    rng, more = np.random.default_rng(2), np.random.default_rng(1)
    vectors = rng.normal(size=(ITEMS, BASE_WIDTH))
    named = rng.random((ITEMS, len(CATEGORY_NAMES))) < 0.6
    # What a wider variant has beyond the first one hardly moves an item.
    vectors = np.hstack([vectors, NOISE * more.normal(size=(ITEMS, variant.width))])[:, : variant.width]
    named = np.hstack([named, more.random((ITEMS, variant.categories)) < 0.6])[:, : variant.categories - 1]
    if variant.seed != 1:
        vectors = vectors + NOISE * np.random.default_rng([2, variant.seed]).normal(size=vectors.shape)
    return vectors.astype(np.float32), np.column_stack([named, ~named.any(axis=1)])


class TinyRecommender(tf.Module):  # type: ignore[misc]  # tensorflow has no type information
    """Mean of the history's item vectors (the "encoder"), dot product with each item, filters, top-k.

    One that takes attributes adds the vector of an item for each country, lets purchases count twice, prefers
    the items of a surface, ranks what is like the best item lower for diversity, and answers probabilities.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        kind, _, when = (variant.defect or "").partition("-")
        self._defect, self._broken_since = kind, LIVE_SINCE if when == "live" else -1
        self._answer = variant.answer
        vectors, members = weights(variant)
        self.keys = tf.constant(keys_of_items())
        self.vectors = tf.Variable(vectors)
        self.members = tf.constant(members)
        self._shuffled = most_opposite(vectors)
        if self._defect == "huge":
            self.hoard = Hoard()
        history = [
            tf.TensorSpec([None, variant.history], tf.int64, "history_keys"),
            tf.TensorSpec([None, variant.history], tf.int64, "history_times"),
            tf.TensorSpec([None, 1], tf.int64, "request_time"),
        ]
        self._ranks = variant.attributes is not None
        if variant.attributes is not None:
            history.append(tf.TensorSpec([None, variant.history], tf.int32, "history_types"))
            features = max(1, len(variant.attributes))
            history.append(tf.TensorSpec([None, features], tf.int64, "user_features"))
        rest = [
            tf.TensorSpec([None, variant.width], tf.float32, "user_vector"),
            tf.TensorSpec([None, 1], tf.int32, "user_vector_fresh"),
            tf.TensorSpec([None, None], tf.int64, "exclude_keys"),
            tf.TensorSpec([None, variant.categories], tf.bool, "allowed_categories"),
        ]
        if self._ranks:
            rest.append(tf.TensorSpec([None, 1], tf.int64, "surface"))
            rest.append(tf.TensorSpec([None, 1], tf.float32, "diversity"))
        if self._defect == "wrong":
            rest.append(tf.TensorSpec([None, 1], tf.int64, "device"))
        names = self.inputs = [spec.name for spec in (*history, *rest)]
        self.encode = tf.function(
            lambda *values: {"user_vector": self._encode(**dict(zip(names, values, strict=False)))},
            input_signature=history,
        )
        self.recommend = tf.function(
            lambda *values: self._recommend(dict(zip(names, values, strict=True))),
            input_signature=[*history, *rest],
        )

    def rows_of(self, keys: tf.Tensor) -> tf.Tensor:
        """Index of each key, `ITEMS` for an unknown one."""
        flat = tf.reshape(keys, [-1])
        place = tf.minimum(tf.searchsorted(self.keys, flat, out_type=tf.int32), ITEMS - 1)
        known = tf.equal(tf.gather(self.keys, place), flat)
        return tf.reshape(tf.where(known, place, ITEMS), tf.shape(keys))

    def _padded_vectors(self) -> tf.Tensor:
        """`[ITEMS + 1, D]`: zeros for an unknown item."""
        return tf.concat([self.vectors, tf.zeros([1, self.vectors.shape[1]])], axis=0)

    def _encode(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        request_time: tf.Tensor,
        history_types: tf.Tensor | None = None,
        user_features: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """User vectors `[B, D]`; zeros for a row without a known item or attribute."""
        rows = self.rows_of(history_keys)
        weight = tf.cast(rows < ITEMS, tf.float32) * tf.exp(
            -tf.cast(tf.maximum(request_time - history_times, 0), tf.float32) / 1e7
        )
        if history_types is not None:
            weight *= 1 + tf.cast(history_types == EventType.PURCHASE, tf.float32)
        total = tf.einsum("bt,btd->bd", weight, tf.gather(self._padded_vectors(), rows))
        mean = total / tf.maximum(tf.reduce_sum(weight, axis=1, keepdims=True), 1e-6)
        if user_features is None:
            return mean
        countries = tf.constant([feature_key("country", value) for value in COUNTRIES], tf.int64)
        has = tf.reduce_any(user_features[:, :, None] == countries, axis=1)  # [B, countries]
        return mean + tf.matmul(tf.cast(has, tf.float32), self.vectors[: len(COUNTRIES)])

    def _recommend(self, given: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The contract's four outputs for its inputs, by name."""
        history_keys, history_times = given["history_keys"], given["history_times"]
        request_time = given["request_time"]
        broken = request_time > self._broken_since
        known = ("history_keys", "history_times", "request_time", "history_types", "user_features")
        encoded = self._encode(**{name: given[name] for name in known if name in given})
        vector = tf.where(given["user_vector_fresh"] > 0, given["user_vector"], encoded)
        scores = tf.matmul(vector, self.vectors, transpose_b=True)
        if self._ranks:
            # Every second item is one of the first surface, the others are of the second.
            surfaces = tf.constant([surface_key(name) for name in SURFACES], tf.int64)
            there = tf.range(ITEMS, dtype=tf.int32) % len(SURFACES) == tf.range(len(SURFACES))[:, None]
            asked = tf.cast(given["surface"] == surfaces, tf.float32)  # [B, surfaces]
            scores += 0.1 * tf.matmul(asked, tf.cast(there, tf.float32))
        if self._defect == "shuffled":
            scores = tf.where(broken, tf.gather(scores, self._shuffled, axis=1), scores)
        elif self._defect == "slow":
            scores = slowed(scores, broken)
        elif self._defect == "failing":
            scores = failing(scores, broken, history_keys[:, -1], history_times[:, -1], request_time[:, 0])
        passes = tf.reduce_any(self.members[None] & given["allowed_categories"][:, None], axis=2)
        excluded = tf.reduce_any(self.rows_of(given["exclude_keys"])[:, :, None] == tf.range(ITEMS), axis=1)
        floor = tf.float32.min
        order = tf.where(passes & ~excluded, scores, floor)
        if self._ranks:
            top = tf.gather(self.vectors, tf.argmax(order, axis=1))  # [B, D]
            unit = tf.nn.l2_normalize(self.vectors, 1)
            likeness = tf.matmul(tf.nn.l2_normalize(top, 1), unit, transpose_b=True)
            order = tf.where(order > floor, order - 2 * given["diversity"] * likeness, floor)
            scores = tf.sigmoid(scores)
        best, place = tf.math.top_k(order, self._answer)
        filled = best > floor
        best = tf.gather(scores, place, batch_dims=1)
        if self._defect == "nan":
            best = tf.where(broken, float("nan"), best)
        history_rows = self.rows_of(history_keys)
        affinity = tf.einsum(
            "bkd,btd->bkt", tf.gather(self.vectors, place), tf.gather(self._padded_vectors(), history_rows)
        )
        affinity = tf.where((history_rows < ITEMS)[:, None], affinity, floor)
        reason = tf.gather(history_keys, tf.argmax(affinity, axis=2), axis=1, batch_dims=1)
        none = tf.reduce_max(affinity, axis=2) <= floor
        return {
            "item_keys": tf.where(filled, tf.gather(self.keys, place), tf.zeros_like(place, tf.int64)),
            "scores": tf.where(filled, best, 0.0),
            "reason_keys": tf.where(none, tf.zeros_like(reason), reason),
            "user_vector": vector + tf.cast(given["device"], tf.float32) if "device" in given else vector,
        }


def golden_inputs(variant: Variant, rows: int = GOLDEN_ROWS) -> dict[str, NDArray[Any]]:
    """Requests of every kind: fresh and not, with and without exclusions, filters and history."""
    rng = np.random.default_rng(3)
    keys = keys_of_items()
    history = rng.choice(keys, (rows, variant.history))
    history[::5, : variant.history - 2] = 0
    history[1] = 0
    excluded = np.zeros((rows, EXCLUDED), np.int64)
    excluded[::2, :5] = rng.choice(keys, (len(excluded[::2]), 5))
    allowed = np.ones((rows, variant.categories), np.bool_)
    allowed[::3] = np.arange(variant.categories) == 0
    inputs = {
        "history_keys": history,
        "history_times": GOLDEN_TIME - rng.integers(0, 10**6, (rows, variant.history)),
        "request_time": np.full((rows, 1), GOLDEN_TIME),
        "user_vector": rng.normal(size=(rows, variant.width)).astype(np.float32),
        "user_vector_fresh": (np.arange(rows, dtype=np.int32) % 2)[:, None],
        "exclude_keys": excluded,
        "allowed_categories": allowed,
    }
    if variant.attributes is None:
        return inputs
    types = rng.choice([EventType.CLICK, EventType.PURCHASE], history.shape)
    features = np.zeros((rows, max(1, len(variant.attributes))), np.int64)
    if "country" in variant.attributes:
        features[:, variant.attributes.index("country")] = [
            feature_key("country", COUNTRIES[row % len(COUNTRIES)]) if row % 4 else 0 for row in range(rows)
        ]
    return inputs | {
        "history_types": np.where(history != 0, types, 0).astype(np.int32),
        "user_features": features,
        "surface": np.array([[surface_key(("", *SURFACES)[row % 3])] for row in range(rows)]),
        "diversity": np.where(np.arange(rows) % 3 == 2, 0.7, 0.0).astype(np.float32)[:, None],
    }


def golden_model(model: TinyRecommender, variant: Variant) -> TinyRecommender:
    """The model whose answers are the expected ones: a healthy one, where the broken one's could not be."""
    if variant.defect in ("nan", "huge", "wrong-signature"):
        return TinyRecommender(replace(variant, defect=None))
    return model


def write_export(folder: Path, variant: Variant) -> None:
    """`model.savedmodel/`, `golden.npz`, `training.json` and `catalog.lmdb` in `folder`."""
    folder.mkdir(parents=True)
    model = TinyRecommender(variant)
    tf.saved_model.save(
        model,
        str(folder / "model.savedmodel"),
        signatures={"recommend": model.recommend, "encode": model.encode},
    )
    inputs = golden_inputs(variant)
    healthy = golden_model(model, variant)
    outputs = healthy.recommend(*(tf.constant(inputs[name]) for name in healthy.inputs))
    golden = {f"in:{name}": value for name, value in inputs.items()}
    golden |= {f"out:{name}": value.numpy() for name, value in outputs.items()}
    np.savez(folder / "golden.npz", **golden)
    names = category_names(variant)
    write_catalog(
        folder / "catalog.lmdb",
        items=[
            CatalogItem(
                item_id,
                item_id.title(),
                tuple(name for name, is_in in zip(names, row[:-1], strict=True) if is_in),
            )
            for item_id, row in zip(ITEM_IDS, model.members.numpy(), strict=True)
        ],
        categories=names,
        popular=keys_of_items(),
        neighbour_keys=np.zeros((ITEMS, 1), np.int64),
        neighbour_scores=np.zeros((ITEMS, 1), np.float32),
    )
    training: dict[str, Any] = {
        "data_fingerprint": "tiny",
        "code_revision": "unknown",
        "model": {"width": variant.width},
        "training": {"epochs": 0},
        "metrics": {"test": {"ndcg@10": 0.1}},
        "seed": variant.seed,
        "created": "2024-01-01T00:00:00+00:00",
        "widths": {"T": variant.history, "D": variant.width, "C": variant.categories, "K": variant.answer},
    }
    if variant.attributes is not None:
        training["widths"]["F"] = max(1, len(variant.attributes))
        training |= {"attributes": variant.attributes, "consumes": variant.consumes}
        training["ignores"] = variant.ignores
        np.savez(folder / "judged.npz", users=np.arange(3))
    (folder / "training.json").write_text(json.dumps(training))


if __name__ == "__main__":
    for path, fields in json.loads(sys.argv[1]).items():
        write_export(Path(path), Variant(**fields))
