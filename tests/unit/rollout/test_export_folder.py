"""What an export says of itself, and whether its parts were made for one another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.catalog import CatalogItem, write_catalog
from features.schema import item_keys
from inference.signature import Signature, Tensor
from rollout.errors import BadExport
from rollout.export_folder import check_agreement, read_export

TRAINING = {
    "data_fingerprint": "tiny",
    "code_revision": "unknown",
    "model": {},
    "training": {},
    "metrics": {},
    "seed": 1,
    "created": "2024-01-01T00:00:00+00:00",
    "widths": {"T": 8},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export whose SavedModel is empty."""
    folder = tmp_path / "export"
    (folder / "model.savedmodel").mkdir(parents=True)
    (folder / "model.savedmodel" / "saved_model.pb").write_bytes(b"")
    write_catalog(
        folder / "catalog.lmdb",
        items=[CatalogItem("a", "A", ())],
        categories=(),
        popular=item_keys(["a"]),
        neighbour_keys=np.zeros((1, 1), np.int64),
        neighbour_scores=np.zeros((1, 1), np.float32),
    )
    golden = {
        "in:history_keys": np.ones((1, 8), np.int64),
        "out:item_keys": item_keys(["a"])[None],
        "out:scores": np.ones((1, 1), np.float32),
        "out:reason_keys": np.ones((1, 1), np.int64),
        "out:user_vector": np.ones((1, 2), np.float32),
    }
    np.savez(folder / "golden.npz", **golden)  # type: ignore[arg-type]  # numpy's own flag
    write(folder)
    return folder


def write(folder: Path, **fields: object) -> None:
    (folder / "training.json").write_text(json.dumps(TRAINING | fields))


def signature(features: int | None) -> Signature:
    tensors = [Tensor("history_keys", "int64", (8,))]
    if features is not None:
        tensors.append(Tensor("user_features", "int64", (features,)))
    return Signature(tuple(tensors), ())


def test_an_export_that_says_nothing_of_attributes_takes_none_and_consumes_everything(folder: Path) -> None:
    training = read_export(folder).training
    assert (training.attributes, training.consumes, training.ignores) == ([], None, [])


def test_attributes_and_consuming_types_are_read(folder: Path) -> None:
    write(folder, attributes=["country", "age"], consumes=["PURCHASE", "CLICK"], ignores=["VIEW"])
    training = read_export(folder).training
    assert training.ignores == ["VIEW"]
    assert (training.attributes, training.consumes) == (["country", "age"], ["PURCHASE", "CLICK"])
    write(folder, consumes=[])
    assert read_export(folder).training.consumes == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"consumes": ["PURCHASE", "buy"]}, r"consumes\.1: buy is none of VIEW, CLICK, .*PURCHASE$"),
        ({"ignores": ["view"]}, r"ignores\.0: view is none of VIEW, CLICK, .*PURCHASE$"),
        ({"attributes": ["age", "age"]}, r"attributes: must name each attribute once$"),
    ],
)
def test_what_nobody_understands_is_named(folder: Path, fields: dict[str, object], says: str) -> None:
    write(folder, **fields)
    with pytest.raises(BadExport, match=says):
        read_export(folder)


@pytest.mark.parametrize(
    ("attributes", "features"), [([], None), ([], 1), (["age"], 1), (["age", "country"], 2)]
)
def test_a_width_for_each_attribute_or_one_for_none_agrees(
    folder: Path, attributes: list[str], features: int | None
) -> None:
    widths = {"T": 8} if features is None else {"T": 8, "F": features}
    write(folder, attributes=attributes, widths=widths)
    check_agreement(read_export(folder), signature(features))


@pytest.mark.parametrize(
    ("attributes", "features", "says"),
    [
        ([], 2, "names 0 attributes, so user_features must have the width 1. In the SavedModel it has 2"),
        (["age", "country"], 1, "names 2 attributes, so user_features must have the width 2"),
        (["age"], None, "names attributes, but the SavedModel takes none"),
    ],
)
def test_another_number_of_attributes_is_refused(
    folder: Path, attributes: list[str], features: int | None, says: str
) -> None:
    widths = {"T": 8} if features is None else {"T": 8, "F": features}
    write(folder, attributes=attributes, widths=widths)
    with pytest.raises(BadExport, match=says):
        check_agreement(read_export(folder), signature(features))


def test_a_width_that_training_does_not_say_is_refused(folder: Path) -> None:
    with pytest.raises(BadExport, match=r"widths\.F is None, but the SavedModel has 1"):
        check_agreement(read_export(folder), signature(1))
