"""Golden requests: real ones with the answers of the SavedModel they are exported with.

Publishing replays them in a fresh process, Triton answers them before it is ready, and here they show that
the SavedModel answers as the trained model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.catalog import CatalogItem
from features.model_inputs import left_padded
from features.schema import item_keys
from training.dataset import History, Prepared
from training.facts import Facts
from training.offline import Offline, Request
from training.serving import Served
from training.trained import Trained

COUNT = 16
_SCANNED_USERS = 1000
_UNKNOWN_KEY = 4711
"""Stands for an item of another version."""
_DIVERSITY = 0.4
_TIE = 1e-5
_SEARCHED = ("user_vector", "request_time", "exclude_keys", "allowed_categories")
_ENCODED = ("history_keys", "history_times", "history_types", "request_time", "user_features")

Arrays = dict[str, NDArray[Any]]


def golden_requests(
    prepared: Prepared, facts: Facts, categories: Sequence[str], signatures: Mapping[str, Callable[..., Any]]
) -> Arrays:
    """`in:<tensor>` and `out:<tensor>` of `COUNT` requests, batch first.

    Users are spread over the first `_SCANNED_USERS` ones. Row 0 has no history, row 1 unknown items in
    it; every second row has a fresh vector; half of the rows exclude what the user had, every fourth has a
    category filter, and the last two want diversity.

    Args:
        categories: those of the catalogue, in the order of `allowed_categories`.
    """
    inputs = _inputs(prepared, facts, categories)
    vectors = signatures["encode"](**_tensors({name: inputs[name] for name in _ENCODED}))["user_vector"]
    inputs["user_vector"] = np.where(inputs["user_vector_fresh"] != 0, vectors.numpy(), np.float32(0.0))
    outputs = signatures["recommend"](**_tensors(inputs))
    answers = {f"out:{name}": tensor.numpy() for name, tensor in outputs.items()}
    return {f"in:{name}": values for name, values in inputs.items()} | answers


def largest_difference(
    golden: Arrays,
    trained: Trained,
    items: Sequence[CatalogItem],
    categories: Sequence[str],
    candidates: NDArray[np.int32] | None = None,
) -> float:
    """The largest absolute difference between a score in the golden answers and that of the trained model.

    Infinite if a page holds other items than the trained model says, or in another order, but for items whose
    scores are the same to a hundred-thousandth.

    Args:
        candidates: int32 `[rows, P]`, catalogue indices from 1 of what the index of the graph found for each
            request, 0 for nothing: pages are made of these. Whether they are the best ones is for the
            recall to say; one that a request does not allow is a difference, and so is a page within
            categories that is shorter than it need be. None: there is no index.
    """
    keys = item_keys(item.item_id for item in items)
    offline = Offline(trained, items, golden["out:item_keys"].shape[1])
    largest = 0.0
    for row, request in enumerate(requests_of(golden, keys, categories)):
        expected = offline.page(request, None if candidates is None else candidates[row])
        got, scores = golden["out:item_keys"][row], golden["out:scores"][row]
        count = len(expected.items)
        if (
            candidates is not None
            and request.categories is not None
            and count < len(offline.page(request).items)
        ):
            return np.inf
        if got[count:].any() or not got[:count].all():
            return np.inf
        largest = max(largest, float(np.abs(scores[:count] - expected.scores).max(initial=0.0)))
        score_of = dict(zip(keys[expected.items - 1].tolist(), expected.scores.tolist(), strict=True))
        for key, score, wanted in zip(
            got[:count].tolist(), expected.scores, keys[expected.items - 1], strict=True
        ):
            if key != wanted and abs(score_of.get(key, np.inf) - score) > _TIE:
                return np.inf
    return largest


def candidates_of(golden: Arrays, served: Served) -> NDArray[np.int32]:
    """What the search of a graph finds for golden requests, as `largest_difference` wants it."""
    inputs = {name[3:]: values for name, values in golden.items() if name.startswith("in:")}
    inputs["user_vector"] = golden["out:user_vector"]
    found = tf.function(served.candidates, autograph=False)(
        **_tensors({name: inputs[name] for name in _SEARCHED})
    )
    return np.where(found.top.numpy() > -np.inf, served.items[found.rows.numpy()], 0)


def requests_of(golden: Arrays, keys: NDArray[np.int64], categories: Sequence[str]) -> list[Request]:
    """The requests as the trained model takes them, without what it does not know.

    Args:
        golden: arrays `in:<tensor>`, in any number of rows.
        keys: int64 `[N]`, of the items.
    """
    index_of = {key: i for i, key in enumerate(keys.tolist(), start=1)}
    requests = []
    for row, mask in enumerate(golden["in:allowed_categories"]):
        known = np.array([key in index_of for key in golden["in:history_keys"][row].tolist()])
        items = [index_of[key] for key in golden["in:history_keys"][row][known].tolist()]
        history = History(
            "",
            np.array(items, np.int32),
            golden["in:history_times"][row][known],
            golden["in:history_types"][row][known].astype(np.uint8),
            features=golden["in:user_features"][row],
        )
        wanted = {category for category, allowed in zip(categories, mask[:-1], strict=True) if allowed}
        requests.append(
            Request(
                history,
                time=int(golden["in:request_time"][row, 0]),
                surface=int(golden["in:surface"][row, 0]),
                excluded=frozenset(
                    index_of[key] for key in golden["in:exclude_keys"][row].tolist() if key in index_of
                ),
                categories=None if mask.all() else frozenset(wanted),
                diversity=float(golden["in:diversity"][row, 0]),
            )
        )
    return requests


def write_golden(path: Path, golden: Arrays) -> None:
    """Writes golden.npz."""
    np.savez(path, allow_pickle=False, **golden)


def _inputs(prepared: Prepared, facts: Facts, categories: Sequence[str]) -> Arrays:
    users, length = _some_users(prepared), facts.config.model.history
    keys = item_keys(item.item_id for item in prepared.items)
    histories: list[NDArray[np.int64]] = [keys[user.items - 1] for user in users]
    times, types = [user.times for user in users], [user.types for user in users]
    histories[0], times[0], types[0] = histories[0][:0], times[0][:0], types[0][:0]
    middle = len(histories[1]) // 2
    histories[1] = np.insert(histories[1], middle, _UNKNOWN_KEY)
    times[1] = np.insert(times[1], middle, times[1][middle])
    types[1] = np.insert(types[1], middle, types[1][middle])
    rows = np.arange(COUNT)
    excluded = [history if row % 4 >= 2 else history[:0] for row, history in enumerate(histories)]
    allowed = np.ones((COUNT, len(categories) + 1), np.bool_)
    if categories:
        allowed[rows % 4 == 3] = False
        allowed[rows % 4 == 3, rows[rows % 4 == 3] % len(categories)] = True
    features = np.zeros((COUNT, facts.vocabulary.attributes), np.int64)
    if facts.attributes:
        features = np.stack([user.features for user in users])
    return {
        "history_keys": left_padded(histories, length, np.int64),
        "history_times": left_padded(times, length, np.int64),
        "history_types": left_padded(types, length, np.int32),
        "request_time": np.array([[user.times[-1] + 1] for user in users], np.int64),
        "user_features": features,
        "user_vector": np.zeros((COUNT, facts.config.model.width), np.float32),
        "user_vector_fresh": (rows[:, None] % 2).astype(np.int32),
        "exclude_keys": left_padded(excluded, max(map(len, excluded)), np.int64),
        "allowed_categories": allowed,
        "surface": np.array([[user.surfaces[-1] if len(user.surfaces) else 0] for user in users], np.int64),
        "diversity": np.where(rows[:, None] >= COUNT - 2, _DIVERSITY, 0.0).astype(np.float32),
    }


def _some_users(prepared: Prepared) -> Sequence[History]:
    scanned = list(islice(prepared.histories(), _SCANNED_USERS))
    return [scanned[i % len(scanned)] for i in np.linspace(0, len(scanned) - 1, COUNT).astype(int).tolist()]


def _tensors(arrays: Arrays) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in arrays.items()}
