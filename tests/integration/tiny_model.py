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
from features.schema import item_keys
from tests.integration.tiny_defects import Hoard, failing, most_opposite, slowed
from tests.integration.tiny_variant import GOLDEN_TIME, ITEM_IDS, ITEMS, LIVE_SINCE, Variant

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
    """Mean of the history's item vectors (the "encoder"), dot product with each item, filters, top-k."""

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
        rest = [
            tf.TensorSpec([None, variant.width], tf.float32, "user_vector"),
            tf.TensorSpec([None, 1], tf.int32, "user_vector_fresh"),
            tf.TensorSpec([None, None], tf.int64, "exclude_keys"),
            tf.TensorSpec([None, variant.categories], tf.bool, "allowed_categories"),
        ]
        if self._defect == "wrong":
            rest.append(tf.TensorSpec([None, 1], tf.int64, "device"))
        self.encode = tf.function(self._encode, input_signature=history)
        self.recommend = tf.function(self._recommend, input_signature=[*history, *rest])

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
        self, history_keys: tf.Tensor, history_times: tf.Tensor, request_time: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """User vectors `[B, D]`; zeros for a row without a known item."""
        rows = self.rows_of(history_keys)
        weight = tf.cast(rows < ITEMS, tf.float32) * tf.exp(
            -tf.cast(tf.maximum(request_time - history_times, 0), tf.float32) / 1e7
        )
        total = tf.einsum("bt,btd->bd", weight, tf.gather(self._padded_vectors(), rows))
        return {"user_vector": total / tf.maximum(tf.reduce_sum(weight, axis=1, keepdims=True), 1e-6)}

    def _recommend(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        request_time: tf.Tensor,
        user_vector: tf.Tensor,
        user_vector_fresh: tf.Tensor,
        exclude_keys: tf.Tensor,
        allowed_categories: tf.Tensor,
        device: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """The contract's four outputs."""
        broken = request_time > self._broken_since
        encoded = self.encode(history_keys, history_times, request_time)["user_vector"]
        vector = tf.where(user_vector_fresh > 0, user_vector, encoded)
        scores = tf.matmul(vector, self.vectors, transpose_b=True)
        if self._defect == "shuffled":
            scores = tf.where(broken, tf.gather(scores, self._shuffled, axis=1), scores)
        elif self._defect == "slow":
            scores = slowed(scores, broken)
        elif self._defect == "failing":
            scores = failing(scores, broken, history_keys[:, -1], history_times[:, -1], request_time[:, 0])
        passes = tf.reduce_any(self.members[None] & allowed_categories[:, None], axis=2)
        excluded = tf.reduce_any(self.rows_of(exclude_keys)[:, :, None] == tf.range(ITEMS), axis=1)
        floor = tf.float32.min
        best, place = tf.math.top_k(tf.where(passes & ~excluded, scores, floor), self._answer)
        filled = best > floor
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
            "user_vector": vector if device is None else vector + tf.cast(device, tf.float32),
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
    return {
        "history_keys": history,
        "history_times": GOLDEN_TIME - rng.integers(0, 10**6, (rows, variant.history)),
        "request_time": np.full((rows, 1), GOLDEN_TIME),
        "user_vector": rng.normal(size=(rows, variant.width)).astype(np.float32),
        "user_vector_fresh": (np.arange(rows, dtype=np.int32) % 2)[:, None],
        "exclude_keys": excluded,
        "allowed_categories": allowed,
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
    outputs = golden_model(model, variant).recommend(
        **{name: tf.constant(value) for name, value in inputs.items()}
    )
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
    training = {
        "data_fingerprint": "tiny",
        "code_revision": "unknown",
        "model": {"width": variant.width},
        "training": {"epochs": 0},
        "metrics": {"test": {"ndcg@10": 0.1}},
        "seed": variant.seed,
        "created": "2024-01-01T00:00:00+00:00",
        "widths": {"T": variant.history, "D": variant.width, "C": variant.categories, "K": variant.answer},
    }
    (folder / "training.json").write_text(json.dumps(training))


if __name__ == "__main__":
    for path, fields in json.loads(sys.argv[1]).items():
        write_export(Path(path), Variant(**fields))
