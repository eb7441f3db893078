"""The stable version's golden requests, as another version is asked them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.schema import EventType, feature_key, surface_key
from inference.golden import Golden
from rollout.manifest import MANIFEST, Manifest, read_manifest
from rollout.trial import _requests
from tests.unit.rollout.published import write_version

OLDER: dict[str, NDArray[Any]] = {
    "history_keys": np.array([[0, 7, 8], [0, 0, 0], [5, 6, 7]]),
    "request_time": np.full((3, 1), 99),
    "exclude_keys": np.array([[3], [0], [0]]),
    "allowed_categories": np.ones((3, 4), np.bool_),
}
DE, FR, YOUNG = feature_key("country", "DE"), feature_key("country", "FR"), feature_key("age", "18")
RANKING: dict[str, NDArray[Any]] = OLDER | {
    "history_types": np.array([[0, 1, 2], [0, 0, 0], [3, 3, 10]], np.int32),
    "user_features": np.array([[DE, YOUNG], [FR, 0], [FR, 0]]),
    "surface": np.array([[surface_key("home")], [0], [0]]),
    "diversity": np.array([[0.7], [0.0], [0.7]], np.float32),
}


def golden(inputs: dict[str, NDArray[Any]]) -> Golden:
    rows = len(inputs["history_keys"])
    outputs: dict[str, NDArray[Any]] = {
        "item_keys": np.ones((rows, 1), np.int64),
        "scores": np.ones((rows, 1), np.float32),
        "reason_keys": np.ones((rows, 1), np.int64),
        "user_vector": np.ones((rows, 2), np.float32),
    }
    return Golden(inputs, outputs)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return tmp_path / "recommender"


def version(model_folder: Path, inputs: dict[str, NDArray[Any]], *attributes: str) -> Path:
    """A version that takes such inputs, with histories of 4 events and 2 categories."""
    folder = write_version(model_folder, 1)
    own = golden(inputs)
    arrays = {f"in:{name}": values for name, values in own.inputs.items()}
    arrays |= {f"out:{name}": values for name, values in own.outputs.items()}
    np.savez(folder / "golden.npz", **arrays)  # type: ignore[arg-type]  # numpy's own flag
    manifest = read_manifest(folder)
    assert manifest is not None
    changed: Manifest = manifest.model_copy(
        update={"widths": {"T": 4, "C": 2, "F": max(1, len(attributes))}, "attributes": list(attributes)}
    )
    (folder / MANIFEST).write_text(changed.text())
    return folder


def test_a_ranking_version_is_asked_an_older_ones_requests_without_surface_and_attributes(
    model_folder: Path,
) -> None:
    asked = _requests(golden(OLDER), [], version(model_folder, RANKING, "country"))
    assert asked.keys() == RANKING.keys()
    assert asked["history_keys"].tolist() == [[0, 0, 7, 8], [0, 5, 6, 7]]
    # The type that its own histories have most.
    assert asked["history_types"].tolist() == [
        [0, 0, EventType.PLAY, EventType.PLAY],
        [0, *[EventType.PLAY] * 3],
    ]
    assert asked["history_types"].dtype == np.int32
    for name in ("user_features", "surface", "diversity", "exclude_keys"):
        assert asked[name].shape == (2, 1)
        assert not asked[name].any()
    assert asked["allowed_categories"].tolist() == [[True, True], [True, True]]


def test_an_older_version_is_asked_a_ranking_ones_requests_as_far_as_it_knows_them(
    model_folder: Path,
) -> None:
    asked = _requests(golden(RANKING), ["country", "age"], version(model_folder, OLDER))
    assert asked.keys() == OLDER.keys()


def test_attributes_are_put_where_the_version_has_them_and_diversity_is_left_out(model_folder: Path) -> None:
    folder = version(model_folder, RANKING, "age", "shoe_size", "country")
    asked = _requests(golden(RANKING), ["country", "age"], folder)
    assert asked["user_features"].tolist() == [[YOUNG, 0, DE], [0, 0, FR]]
    assert asked["history_types"].tolist() == [[0, 0, 1, 2], [0, 3, 3, 10]]
    assert asked["surface"].tolist() == [[surface_key("home")], [0]]
    assert not asked["diversity"].any()
