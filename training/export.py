"""From a finished run to the folder that is published: SavedModel, catalogue, golden requests, description.

    <state>/exports/<name>/
        model.savedmodel/   `serving.Served`
        catalog.lmdb        titles, categories, popularity, neighbours (`features.catalog`)
        golden.npz          16 real requests `in:<tensor>` with the answers of this SavedModel `out:<tensor>`
        judged.npz          how each user of the test fared with this model (`training.judged`)
        added.parquet       what was told of items since the training, if anything was (`training.extension`)
        training.json       what it was made from, how good it is, the widths of its tensors

The folder is written under another name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.catalog import CatalogItem, write_catalog
from features.schema import item_keys
from training.config import Config
from training.data_folder import exclusive, replacing
from training.dataset import Prepared
from training.errors import TrainingError
from training.results import Result
from training.runs import JUDGED
from training.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from training.trained import Trained

ADDED = "added.parquet"
NEIGHBOURS = 100
PARITY_TOLERANCE = 1e-4
_LAYOUT = 6
"""Raise it when the same run exports to something else, so that old exports are not reused."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export folder."""

    folder: Path
    max_difference: float
    """Largest absolute difference between a score of the SavedModel and that of the trained model."""
    reused: bool


def export(
    config: Config,
    prepared: Prepared,
    catalogue: Sequence[CatalogItem],
    trained: Trained,
    popularity: NDArray[np.int64],
    result: Result,
    judged: Path,
    folder: Path,
    *,
    fingerprint: str,
    added: Path | None = None,
) -> Export:
    """Writes the export folder of a run.

    Args:
        catalogue: the items that `trained` has vectors of; those of `prepared` first, in the same order.
        popularity: int `[N]`, users of each item, for the pages of those of whom nothing is known.
        judged: how each user of the test fared, to be kept with the model.
        fingerprint: sha256 of everything that decides the export.
        added: added.parquet, what was told of items after the training, to be kept with the model.

    Raises:
        TrainingError: two item ids have one key, or the SavedModel does not answer as the trained model does.
    """
    import_tensorflow()
    import tensorflow as tf

    from training.golden import golden_requests, largest_difference, write_golden
    from training.serving import Served

    categories = tuple(sorted({category for item in catalogue for category in item.categories}))
    served = Served(trained, catalogue, categories, page_size=config.model.page_size)
    keys = item_keys(item.item_id for item in catalogue)
    with exclusive(folder), replacing(folder) as new:
        write_catalog(
            new / "catalog.lmdb",
            items=catalogue,
            categories=categories,
            popular=keys[np.argsort(-popularity, kind="stable")],
            **_neighbours(trained.items.vectors[1:], keys),
        )
        signatures = {"recommend": served.recommend, "encode": served.encode}
        tf.saved_model.save(served, str(new / "model.savedmodel"), signatures=signatures)
        loaded = tf.saved_model.load(str(new / "model.savedmodel"))
        golden = golden_requests(prepared, trained.facts, categories, loaded.signatures)
        write_golden(new / "golden.npz", golden)
        difference = largest_difference(golden, trained, catalogue, categories)
        if not difference <= PARITY_TOLERANCE:
            raise TrainingError(
                f"the SavedModel's scores differ from the trained model's by up to {difference:.1e}, "
                f"more than {PARITY_TOLERANCE:.0e}: not exported"
            )
        shutil.copy(judged, new / JUDGED)
        if added is not None:
            shutil.copy(added, new / ADDED)
        description = {
            **_description(config, prepared, result),
            "fingerprint": fingerprint,
            "items": len(catalogue),
            "categories": list(categories),
            "attributes": list(trained.facts.attributes),
            "consumes": config.behaviour.consuming,
            "ignores": config.behaviour.ignored,
            "ranker": trained.ranker is not None,
            "widths": {
                "T": served.history,
                "D": served.width,
                "K": served.page_size,
                "C": len(categories) + 1,
                "F": trained.facts.vocabulary.attributes,
            },
            "parity": difference,
        }
        (new / "training.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return Export(folder, difference, reused=False)


def existing_export(folder: Path, fingerprint: str) -> Export | None:
    """The export in `folder` if it has this very fingerprint, else None."""
    try:
        description = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        same = description["fingerprint"] == fingerprint
        difference = float(description["parity"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = all((folder / name).exists() for name in ("model.savedmodel", "catalog.lmdb", "golden.npz"))
    return Export(folder, difference, reused=True) if same and whole else None


def export_fingerprint(config: Config, result: Result, added: str = "") -> str:
    """sha256 of everything that decides the export; `added` is that of the items added after training."""
    behaviour = config.behaviour.model_dump(mode="json", include={"consumes", "freshness"})
    decides = [_LAYOUT, result.fingerprint, config.model.page_size, behaviour, added]
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


def _description(config: Config, prepared: Prepared, result: Result) -> dict[str, Any]:
    return {
        "name": config.data.name,
        "data_fingerprint": prepared.fingerprint,
        "run": result.fingerprint,
        "code_revision": _code_revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": result.seed,
        "model": config.model.model_dump(mode="json"),
        "behaviour": config.behaviour.model_dump(mode="json"),
        "training": {**config.training.model_dump(mode="json"), "seed": result.seed},
        "best_epoch": result.best_epoch,
        "split": result.split,
        "metrics": {"test": result.test.metrics, "validation": result.validation.metrics},
        "epsilon": result.epsilon,
    }


def _code_revision() -> str:
    """The git commit of the code, with `-dirty` if it was changed since; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
