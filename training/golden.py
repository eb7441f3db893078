"""Golden requests: real ones with the answers of the SavedModel they are exported with.

Publishing replays them in a fresh process, Triton answers them before it is ready, and here they show that
the SavedModel scores as the Keras model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.model_inputs import left_padded
from features.schema import item_keys
from training.config import ModelConfig
from training.dataset import History, Prepared
from training.model import HistoryEncoder

COUNT = 16
_SCANNED_USERS = 1000
_UNKNOWN_KEY = 4711
"""Stands for an item of another version."""

Arrays = dict[str, NDArray[Any]]


def golden_requests(
    prepared: Prepared, signatures: Mapping[str, Callable[..., Any]], config: ModelConfig
) -> Arrays:
    """`in:<tensor>` and `out:<tensor>` of `COUNT` requests, batch first.

    Users are spread over the first `_SCANNED_USERS` ones. Row 0 has no history, row 1 unknown items in
    it; every second row has a fresh vector; half of the rows exclude what the user had, and every fourth has
    a category filter.
    """
    inputs = _inputs(prepared, config)
    encode_inputs = {name: inputs[name] for name in ("history_keys", "history_times", "request_time")}
    vectors = signatures["encode"](**_tensors(encode_inputs))["user_vector"].numpy()
    inputs["user_vector"] = np.where(inputs["user_vector_fresh"] != 0, vectors, np.float32(0.0))
    outputs = signatures["recommend"](**_tensors(inputs))
    answers = {f"out:{name}": tensor.numpy() for name, tensor in outputs.items()}
    return {f"in:{name}": values for name, values in inputs.items()} | answers


def largest_difference(golden: Arrays, model: HistoryEncoder, prepared: Prepared) -> float:
    """The largest absolute difference between a score in the golden answers and the Keras model's score of
    that item.

    Infinite if an answer holds an item that the request forbids, or leaves out one that scores higher than
    what it holds.
    """
    index_of = {
        key: i + 1 for i, key in enumerate(item_keys(item.item_id for item in prepared.items).tolist())
    }
    histories = [
        [index_of[key] for key in row if key in index_of] for row in golden["in:history_keys"].tolist()
    ]
    padded = left_padded(
        [np.array(history, np.int32) for history in histories], model.config.history, np.int32
    )
    scores = (model(padded, newest_only=True) @ tf.transpose(model.item_vectors)).numpy()
    largest = 0.0
    for row, expected in enumerate(scores):
        allowed = _allowed(golden, row, prepared)
        expected[~allowed] = -np.inf
        best = -np.sort(-expected)[: golden["out:scores"].shape[1]]
        for slot, (key, score) in enumerate(
            zip(golden["out:item_keys"][row], golden["out:scores"][row], strict=True)
        ):
            if key == 0:
                largest = max(largest, np.inf if np.isfinite(best[slot]) else 0.0)
                continue
            of_this_item, of_this_slot = expected[index_of[int(key)] - 1], best[slot]
            largest = max(largest, float(abs(score - of_this_item)), float(abs(score - of_this_slot)))
    return largest


def write_golden(path: Path, golden: Arrays) -> None:
    """Writes golden.npz."""
    np.savez(path, allow_pickle=False, **golden)


def _allowed(golden: Arrays, row: int, prepared: Prepared) -> NDArray[np.bool_]:
    excluded = set(golden["in:exclude_keys"][row].tolist())
    mask = golden["in:allowed_categories"][row]
    wanted = {category for category, allowed in zip(prepared.categories, mask[:-1], strict=True) if allowed}
    keys = item_keys(item.item_id for item in prepared.items).tolist()
    return np.array(
        [
            key not in excluded
            and (bool(mask[-1]) if not item.categories else not wanted.isdisjoint(item.categories))
            for key, item in zip(keys, prepared.items, strict=True)
        ]
    )


def _inputs(prepared: Prepared, config: ModelConfig) -> Arrays:
    users = _some_users(prepared)
    keys = item_keys(item.item_id for item in prepared.items)
    histories: list[NDArray[np.int64]] = [keys[user.items - 1] for user in users]
    histories[0] = histories[0][:0]
    histories[1] = np.insert(histories[1], len(histories[1]) // 2, _UNKNOWN_KEY)
    times = [np.resize(user.times, len(history)) for user, history in zip(users, histories, strict=True)]
    rows = np.arange(COUNT)
    excluded = [history if row % 4 >= 2 else history[:0] for row, history in enumerate(histories)]
    allowed = np.ones((COUNT, len(prepared.categories) + 1), np.bool_)
    if prepared.categories:
        allowed[rows % 4 == 3] = False
        allowed[rows % 4 == 3, rows[rows % 4 == 3] % len(prepared.categories)] = True
    return {
        "history_keys": left_padded(histories, config.history, np.int64),
        "history_times": left_padded(times, config.history, np.int64),
        "request_time": np.array([[user.times[-1] + 1] for user in users], np.int64),
        "user_vector": np.zeros((COUNT, config.width), np.float32),
        "user_vector_fresh": (rows[:, None] % 2).astype(np.int32),
        "exclude_keys": left_padded(excluded, max(map(len, excluded)), np.int64),
        "allowed_categories": allowed,
    }


def _some_users(prepared: Prepared) -> Sequence[History]:
    scanned = list(islice(prepared.histories(), _SCANNED_USERS))
    return [scanned[i % len(scanned)] for i in np.linspace(0, len(scanned) - 1, COUNT).astype(int).tolist()]


def _tensors(arrays: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in arrays.items()}
