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
import time
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
from training.index import Index
from training.neighbours import neighbours
from training.results import Result
from training.runs import JUDGED
from training.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from training.trained import Trained

ADDED = "added.parquet"
NEIGHBOURS = 100
PARITY_TOLERANCE = 1e-4
_LAYOUT = 8
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
        TrainingError: two item ids have one key, the SavedModel does not answer as the trained model does, or
            an index that was asked for by name finds too few of the best candidates.
    """
    import_tensorflow()
    import tensorflow as tf

    from training.golden import candidates_of, golden_requests, largest_difference, write_golden
    from training.index_choice import index_time, planned_index, wants_index, with_recall
    from training.index_recall import asked_of
    from training.serving import Served

    categories = tuple(sorted({category for item in catalogue for category in item.categories}))
    page_size, index, said = config.model.page_size, None, None
    if wants_index(config.index, len(catalogue)):
        moment = index_time(trained, int(time.time()))
        asked = asked_of(prepared, trained, catalogue, categories, moment)
        index = planned_index(config.index, trained, asked, moment)
        served = Served(trained, catalogue, categories, page_size=page_size, index=index)
        said = with_recall(served, index, trained, asked, config.index)
        if said["kind"] == "exact":
            index = None
    if index is None:
        served = Served(trained, catalogue, categories, page_size=page_size)
    keys = item_keys(item.item_id for item in catalogue)
    with exclusive(folder), replacing(folder) as new:
        write_catalog(
            new / "catalog.lmdb",
            items=catalogue,
            categories=categories,
            popular=keys[np.argsort(-popularity, kind="stable")],
            **_neighbours(trained.items.vectors[1:], keys, index),
        )
        signatures = {"recommend": served.recommend, "encode": served.encode}
        tf.saved_model.save(served, str(new / "model.savedmodel"), signatures=signatures)
        loaded = tf.saved_model.load(str(new / "model.savedmodel"))
        golden = golden_requests(prepared, trained.facts, categories, loaded.signatures)
        write_golden(new / "golden.npz", golden)
        candidates = None if index is None else candidates_of(golden, served)
        difference = largest_difference(golden, trained, catalogue, categories, candidates)
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
            "vectors_may_lag": config.model.encodes_slowly,
            "ranker": trained.ranker is not None,
            "index": said,
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
    index = config.index.model_dump(mode="json")
    decides = [_LAYOUT, result.fingerprint, config.model.page_size, behaviour, index, added]
    return sha256(json.dumps(decides).encode()).hexdigest()


def _neighbours(vectors: NDArray[np.float32], keys: NDArray[np.int64], index: Index | None) -> dict[str, Any]:
    """For each item the `NEIGHBOURS` others with the highest cosine of vectors, nearest first."""
    near, scores = neighbours(vectors, min(NEIGHBOURS, len(keys) - 1), index)
    return {"neighbour_keys": np.where(near >= 0, keys[near], 0), "neighbour_scores": scores}


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
