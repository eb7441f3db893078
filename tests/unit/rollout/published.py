"""Versions in a model folder, without a model in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.catalog import CatalogItem, write_catalog
from features.schema import item_keys
from rollout.manifest import MANIFEST, Manifest, hash_files


def write_version(model_folder: Path, version: int) -> Path:
    """A version whose SavedModel is three bytes."""
    folder = model_folder / str(version)
    (folder / "model.savedmodel").mkdir(parents=True)
    (folder / "model.savedmodel" / "saved_model.pb").write_bytes(b"tf" + bytes([version]))
    (folder / "golden.npz").write_bytes(b"golden")
    write_catalog(
        folder / "catalog.lmdb",
        items=[CatalogItem("a", "A", ())],
        categories=(),
        popular=item_keys(["a"]),
        neighbour_keys=np.zeros((1, 1), np.int64),
        neighbour_scores=np.zeros((1, 1), np.float32),
    )
    names = ["model.savedmodel", "golden.npz", "catalog.lmdb"]
    manifest = Manifest(
        model="recommender",
        version=version,
        created="2024-01-01T00:00:00+00:00",
        export="tiny",
        trained="2024-01-01T00:00:00+00:00",
        data_fingerprint="tiny",
        code_revision="unknown",
        seed=1,
        hyper_parameters={},
        metrics={},
        widths={},
        tensorflow="2.21",
        files=hash_files(folder, names),
    )
    (folder / MANIFEST).write_text(manifest.text())
    return folder
