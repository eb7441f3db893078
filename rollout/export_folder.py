"""An export folder, as `training` leaves it: found, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from features.catalog import Catalog, CatalogError
from features.schema import EventType
from inference.errors import UnfitModel
from inference.golden import Golden, read_golden
from inference.signature import Signature
from rollout.errors import BadExport

FILES = ("golden.npz", "catalog.lmdb", "training.json")
SAVEDMODEL = "model.savedmodel"


def _event_type(name: str) -> str:
    if name not in EventType.__members__:
        known = ", ".join(EventType.__members__)
        raise PydanticCustomError("event_type", "{name} is none of {known}", {"name": name, "known": known})
    return name


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise PydanticCustomError("distinct", "must name each attribute once")
    return names


class TrainingRecord(BaseModel):
    """`training.json`: where the model comes from. Further fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    data_fingerprint: str
    code_revision: str
    model: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    seed: int
    created: str
    widths: dict[str, int]
    attributes: Annotated[list[str], AfterValidator(_distinct)] = []
    """Names of the user attributes that the model takes, in the order of its input `user_features`."""
    consumes: list[Annotated[str, AfterValidator(_event_type)]] | None = None
    """Types of events (names of `EventType`) whose items are not recommended again; None: all types."""
    ignores: list[Annotated[str, AfterValidator(_event_type)]] = []
    """Types of events that are no part of the history that the model reads."""
    index: dict[str, str | int | float] | None = None
    """How candidates are found, and the share of the best ones that are; None: by the score of every item."""
    vectors_may_lag: bool = False
    """Whether its encoder is too slow to run with requests."""


@dataclass(frozen=True, slots=True)
class Export:
    """A complete export; `folder` holds it, or a copy of what is published of it."""

    name: str
    folder: Path
    training: TrainingRecord
    golden: Golden

    @property
    def savedmodel(self) -> Path:
        """The SavedModel's folder."""
        return self.folder / SAVEDMODEL

    @property
    def catalog(self) -> Path:
        """The catalogue file."""
        return self.folder / "catalog.lmdb"


def newest_export(exports: Path) -> Path:
    """The export in `exports` that was written last.

    Raises:
        BadExport: there is none.
    """
    records = sorted(exports.glob("*/training.json"), key=lambda path: path.stat().st_mtime_ns)
    if not records:
        raise BadExport(f"{exports}: holds no export; train one first, or name one with --export")
    return records[-1].parent


def read_export(folder: Path) -> Export:
    """Read what an export folder says of itself.

    Raises:
        BadExport: naming the file, and the field if there is one.
    """
    if not folder.is_dir():
        raise BadExport(f"{folder}: no such folder")
    for name in (f"{SAVEDMODEL}/saved_model.pb", *FILES):
        if not (folder / name).is_file():
            raise BadExport(f"{folder}: has no {name}")
    record = folder / "training.json"
    try:
        training = TrainingRecord.model_validate_json(record.read_bytes())
    except ValidationError as exc:
        problem = exc.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise BadExport(f"{record}: {field}: {problem['msg']}") from exc
    try:
        golden = read_golden(folder / "golden.npz")
    except UnfitModel as exc:
        raise BadExport(str(exc)) from exc
    return Export(folder.resolve().name, folder, training, golden)


def check_agreement(export: Export, signature: Signature) -> None:
    """Refuse parts that were not made for one another: the SavedModel, `training.json` and the catalogue.

    Raises:
        BadExport: naming the two that differ.
    """
    for letter, width in signature.widths.items():
        said = export.training.widths.get(letter)
        if said != width:
            raise BadExport(
                f"{export.name}/training.json: widths.{letter} is {said}, but the SavedModel has {width}"
            )
    named, features = len(export.training.attributes), signature.widths.get("F")
    if features is None and named:
        raise BadExport(f"{export.name}/training.json: names attributes, but the SavedModel takes none")
    if features not in (None, max(1, named)):
        raise BadExport(
            f"{export.name}/training.json: names {named} attributes, so user_features must have the width "
            f"{max(1, named)}. In the SavedModel it has {features}"
        )
    try:
        catalog = Catalog(export.catalog)
    except CatalogError as exc:
        raise BadExport(str(exc)) from exc
    try:
        slots = len(catalog.categories) + 1  # the last is for items without a category
        if slots != signature.widths.get("C", slots):
            raise BadExport(
                f"{export.catalog}: has {slots - 1} categories, so allowed_categories must have {slots} (the "
                f"last is for items without one). In the SavedModel it has {signature.widths['C']}: "
                "export again"
            )
        for key in sorted({int(key) for key in export.golden.outputs["item_keys"].flat} - {0}):
            if key not in catalog:
                raise BadExport(
                    f"{export.catalog}: lacks the item with key {key}, which a golden request returns"
                )
    finally:
        catalog.close()
