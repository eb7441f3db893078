"""From a finished run to the folder that is published: SavedModel, catalogue, golden requests, description.

    <state>/exports/<name>/
        model.savedmodel/   `serving.Served`
        catalog.lmdb        titles, categories, popularity, neighbours (`features.catalog`)
        golden.npz          16 real requests `in:<tensor>` with the answers of this SavedModel `out:<tensor>`
        training.json       what it was made from, how good it is, the widths of its tensors

The folder is written under another name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.catalog import write_catalog
from features.schema import item_keys
from training.baselines import Counts
from training.config import Config
from training.data_folder import exclusive, replacing
from training.dataset import Prepared
from training.errors import TrainingError
from training.runs import Result
from training.tensorflow_import import import_tensorflow

NEIGHBOURS = 100
PARITY_TOLERANCE = 1e-4
_LAYOUT = 2
"""Raise it when the same run exports to something else, so that old exports are not reused."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export folder."""

    folder: Path
    max_difference: float
    """Largest absolute difference between a score of the SavedModel and that of the Keras model."""
    reused: bool


def export(
    config: Config, prepared: Prepared, counts: Counts, result: Result, weights: Path, folder: Path
) -> Export:
    """Writes the export folder of a run.

    Raises:
        TrainingError: two item ids have one key, or the SavedModel does not score as the Keras model does.
    """
    import_tensorflow()
    import tensorflow as tf

    from training.checkpoint import load_weights
    from training.golden import golden_requests, largest_difference, write_golden
    from training.model import build
    from training.serving import Served

    model = build(config.model, len(prepared.items))
    load_weights(weights, model)
    vectors = np.asarray(model.item_vectors)
    if not np.isfinite(vectors).all():
        raise TrainingError(
            f"{weights}: holds item vectors that are not finite; train with a lower learning_rate"
        )
    served = Served(model, prepared.items, prepared.categories, page_size=config.model.page_size)
    keys = item_keys(item.item_id for item in prepared.items)
    with exclusive(folder), replacing(folder) as new:
        write_catalog(
            new / "catalog.lmdb",
            items=prepared.items,
            categories=prepared.categories,
            popular=keys[np.argsort(-counts.item_users, kind="stable")],
            **_neighbours(vectors, keys),
        )
        signatures = {"recommend": served.recommend, "encode": served.encode}
        tf.saved_model.save(served, str(new / "model.savedmodel"), signatures=signatures)
        loaded = tf.saved_model.load(str(new / "model.savedmodel"))
        golden = golden_requests(prepared, loaded.signatures, config.model)
        write_golden(new / "golden.npz", golden)
        difference = largest_difference(golden, model, prepared)
        if not difference <= PARITY_TOLERANCE:
            raise TrainingError(
                f"the SavedModel scores differ from the Keras model's by up to {difference:.1e}, "
                f"more than {PARITY_TOLERANCE:.0e}: not exported"
            )
        widths = {"T": served.history, "D": served.width, "K": served.page_size}
        widths["C"] = len(prepared.categories) + 1
        description = _description(config, prepared, result, widths, difference)
        (new / "training.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return Export(folder, difference, reused=False)


def existing_export(folder: Path, config: Config, result: Result) -> Export | None:
    """The export in `folder` if it is of this very run, else None."""
    try:
        description = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        same = description["fingerprint"] == export_fingerprint(config, result)
        difference = float(description["parity"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = all((folder / name).exists() for name in ("model.savedmodel", "catalog.lmdb", "golden.npz"))
    return Export(folder, difference, reused=True) if same and whole else None


def export_fingerprint(config: Config, result: Result) -> str:
    """sha256 of everything that decides the export."""
    decides = [_LAYOUT, result.fingerprint, config.model.page_size]
    return sha256(json.dumps(decides).encode()).hexdigest()


def _neighbours(vectors: NDArray[np.float32], keys: NDArray[np.int64]) -> dict[str, Any]:
    """For each item the `NEIGHBOURS` others with the highest cosine of vectors, nearest first."""
    count = min(NEIGHBOURS, len(keys) - 1)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near_keys = np.zeros((len(keys), count), np.int64)
    near_scores = np.zeros((len(keys), count), np.float32)
    rows_at_once = max(1, 2**24 // len(keys))
    for start in range(0, len(keys) if count else 0, rows_at_once):
        cosine = unit[start : start + rows_at_once] @ unit.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = -np.inf
        best = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        scores = np.take_along_axis(cosine, best, axis=1)
        order = np.lexsort((best, -scores), axis=1)
        near_keys[start + rows] = keys[np.take_along_axis(best, order, axis=1)]
        near_scores[start + rows] = np.take_along_axis(scores, order, axis=1)
    return {"neighbour_keys": near_keys, "neighbour_scores": near_scores}


def _description(
    config: Config, prepared: Prepared, result: Result, widths: dict[str, int], parity: float
) -> dict[str, Any]:
    return {
        "name": config.data.name,
        "fingerprint": export_fingerprint(config, result),
        "data_fingerprint": prepared.fingerprint,
        "code_revision": _code_revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": result.seed,
        "model": config.model.model_dump(mode="json"),
        "training": {**config.training.model_dump(mode="json"), "seed": result.seed},
        "best_epoch": result.best_epoch,
        "split": result.split,
        "metrics": {"test": result.test.metrics, "validation": result.validation.metrics},
        "items": len(prepared.items),
        "categories": list(prepared.categories),
        "widths": widths,
        "parity": parity,
    }


def _code_revision() -> str:
    """The git commit of the code, with `-dirty` if it was changed since; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
