"""A SavedModel that keeps the tensor contract and builds in seconds: 50 items, random weights, no training.

Run as a program (`python -m tests.integration.tiny_model FOLDER`), so that no test process has to load
TensorFlow: writes an export folder, the way `training/export.py` writes one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from features.catalog import CatalogItem, write_catalog
from features.schema import item_key, item_keys

ITEMS, HISTORY, WIDTH, EXCLUDED, CATEGORIES, ANSWER = 50, 8, 4, 16, 4, 10
GOLDEN_ROWS = 16
REQUEST_TIME = 1_700_000_000


ITEM_IDS = sorted((f"item-{number}" for number in range(ITEMS)), key=item_key)


def keys_of_items() -> np.ndarray:
    """Int64 `[ITEMS]`, ascending."""
    return item_keys(ITEM_IDS)


class TinyRecommender(tf.Module):  # type: ignore[misc]  # tensorflow has no type information
    """Mean of the history's item vectors (the "encoder"), dot product with each item, filters, top-k."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(2)
        self.keys = tf.constant(keys_of_items())
        self.vectors = tf.Variable(rng.normal(size=(ITEMS, WIDTH)).astype(np.float32))
        named = rng.random((ITEMS, CATEGORIES - 1)) < 0.6
        self.members = tf.constant(np.column_stack([named, ~named.any(axis=1)]))

    def rows_of(self, keys: tf.Tensor) -> tf.Tensor:
        """Index of each key, `ITEMS` for an unknown one."""
        flat = tf.reshape(keys, [-1])
        place = tf.minimum(tf.searchsorted(self.keys, flat, out_type=tf.int32), ITEMS - 1)
        known = tf.equal(tf.gather(self.keys, place), flat)
        return tf.reshape(tf.where(known, place, ITEMS), tf.shape(keys))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, HISTORY], tf.int64, "history_keys"),
            tf.TensorSpec([None, HISTORY], tf.int64, "history_times"),
            tf.TensorSpec([None, 1], tf.int64, "request_time"),
        ]
    )
    def encode(
        self, history_keys: tf.Tensor, history_times: tf.Tensor, request_time: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """User vectors `[B, WIDTH]`; zeros for a row without a known item."""
        padded = tf.concat([self.vectors, tf.zeros([1, WIDTH])], axis=0)
        rows = self.rows_of(history_keys)
        weight = tf.cast(rows < ITEMS, tf.float32) * tf.exp(
            -tf.cast(tf.maximum(request_time - history_times, 0), tf.float32) / 1e7
        )
        total = tf.einsum("bt,btd->bd", weight, tf.gather(padded, rows))
        return {"user_vector": total / tf.maximum(tf.reduce_sum(weight, axis=1, keepdims=True), 1e-6)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, HISTORY], tf.int64, "history_keys"),
            tf.TensorSpec([None, HISTORY], tf.int64, "history_times"),
            tf.TensorSpec([None, 1], tf.int64, "request_time"),
            tf.TensorSpec([None, WIDTH], tf.float32, "user_vector"),
            tf.TensorSpec([None, 1], tf.int32, "user_vector_fresh"),
            tf.TensorSpec([None, None], tf.int64, "exclude_keys"),
            tf.TensorSpec([None, CATEGORIES], tf.bool, "allowed_categories"),
        ]
    )
    def recommend(
        self,
        history_keys: tf.Tensor,
        history_times: tf.Tensor,
        request_time: tf.Tensor,
        user_vector: tf.Tensor,
        user_vector_fresh: tf.Tensor,
        exclude_keys: tf.Tensor,
        allowed_categories: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """The contract's four outputs."""
        encoded = self.encode(history_keys, history_times, request_time)["user_vector"]
        vector = tf.where(user_vector_fresh > 0, user_vector, encoded)
        scores = tf.matmul(vector, self.vectors, transpose_b=True)
        passes = tf.reduce_any(self.members[None] & allowed_categories[:, None], axis=2)
        excluded = tf.reduce_any(self.rows_of(exclude_keys)[:, :, None] == tf.range(ITEMS), axis=1)
        floor = tf.float32.min
        best, place = tf.math.top_k(tf.where(passes & ~excluded, scores, floor), ANSWER)
        filled = best > floor
        history_rows = self.rows_of(history_keys)
        padded = tf.concat([self.vectors, tf.zeros([1, WIDTH])], axis=0)
        affinity = tf.einsum("bkd,btd->bkt", tf.gather(self.vectors, place), tf.gather(padded, history_rows))
        affinity = tf.where((history_rows < ITEMS)[:, None], affinity, floor)
        reason = tf.gather(history_keys, tf.argmax(affinity, axis=2), axis=1, batch_dims=1)
        none = tf.reduce_max(affinity, axis=2) <= floor
        return {
            "item_keys": tf.where(filled, tf.gather(self.keys, place), tf.zeros_like(place, tf.int64)),
            "scores": tf.where(filled, best, 0.0),
            "reason_keys": tf.where(none, tf.zeros_like(reason), reason),
            "user_vector": vector,
        }


def golden_inputs(rows: int = GOLDEN_ROWS) -> dict[str, np.ndarray]:
    """Requests of every kind: fresh and not, with and without exclusions, filters and history."""
    rng = np.random.default_rng(3)
    keys = keys_of_items()
    history = rng.choice(keys, (rows, HISTORY))
    history[::5, : HISTORY - 2] = 0
    history[1] = 0
    excluded = np.zeros((rows, EXCLUDED), np.int64)
    excluded[::2, :5] = rng.choice(keys, (len(excluded[::2]), 5))
    allowed = np.ones((rows, CATEGORIES), np.bool_)
    allowed[::3] = [True, False, False, False]
    return {
        "history_keys": history,
        "history_times": REQUEST_TIME - rng.integers(0, 10**6, (rows, HISTORY)),
        "request_time": np.full((rows, 1), REQUEST_TIME),
        "user_vector": rng.normal(size=(rows, WIDTH)).astype(np.float32),
        "user_vector_fresh": (np.arange(rows, dtype=np.int32) % 2)[:, None],
        "exclude_keys": excluded,
        "allowed_categories": allowed,
    }


def write_export(folder: Path) -> None:
    """`model.savedmodel/`, `golden.npz`, `training.json` and `catalog.lmdb` in `folder`."""
    folder.mkdir(parents=True)
    model = TinyRecommender()
    tf.saved_model.save(
        model,
        str(folder / "model.savedmodel"),
        signatures={"recommend": model.recommend, "encode": model.encode},
    )
    inputs = golden_inputs()
    outputs = model.recommend(**{name: tf.constant(value) for name, value in inputs.items()})
    golden = {f"in:{name}": value for name, value in inputs.items()}
    golden |= {f"out:{name}": value.numpy() for name, value in outputs.items()}
    np.savez(folder / "golden.npz", **golden)
    names = ("drama", "comedy", "war")
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
        "model": {"width": WIDTH},
        "training": {"epochs": 0},
        "metrics": {"test": {"ndcg@10": 0.1}},
        "seed": 1,
        "created": "2024-01-01T00:00:00+00:00",
        "widths": {"T": HISTORY, "D": WIDTH, "C": CATEGORIES, "K": ANSWER},
    }
    (folder / "training.json").write_text(json.dumps(training))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    write_export(parser.parse_args().folder)
