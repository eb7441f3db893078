"""A synthetic export is one as training leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.synthetic_export import config_of, write_export
from benchmarks.synthetic_world import make_world
from features.settings import Settings
from inference.environment import probe
from rollout.manifest import read_manifest
from rollout.publish import publish

ITEMS, HISTORY = 500, 12
"""Of `export`."""


def test_it_passes_the_preflight_of_publishing(export: Path, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", model_repository=tmp_path / "repository")
    published = publish(settings, probe(settings.triton_python), export)
    manifest = read_manifest(published.folder)
    assert manifest is not None
    assert manifest.widths == {"T": HISTORY, "D": 64, "K": 100, "C": 21, "F": 1}


def test_its_pages_follow_the_history_and_differ_from_user_to_user(export: Path) -> None:
    """As a trained model's do: else an index or a cache would be measured on one and the same page."""
    with np.load(export / "golden.npz") as golden:
        plain = golden["in:allowed_categories"].all(axis=1) & (golden["in:diversity"][:, 0] == 0)
        pages, vectors = golden["out:item_keys"][plain], golden["out:user_vector"][plain]
    assert len({tuple(page) for page in pages.tolist()}) == len(pages) >= 8
    assert (np.linalg.norm(vectors, axis=1) > 1).all()


def test_the_same_world_gives_the_same_weights(export: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_export(config_of(ITEMS, "small", HISTORY), make_world(ITEMS), again)

    def weights(folder: Path) -> bytes:
        return (folder / "model.savedmodel/variables/variables.data-00000-of-00001").read_bytes()

    assert weights(again) == weights(export)


def test_a_size_has_its_own_history_unless_another_is_asked_for() -> None:
    assert config_of(10, "base", None).model.history == 100
    assert config_of(10, "large", 50).model.history == 50
    assert config_of(10, "large", 50).model.layers == 8
