"""The state of a training run after an epoch, in one file, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Arrays = list[NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of the training curves."""

    epoch: int
    """From 1."""
    loss: float
    """Mean training loss per predicted event, with dropout, in nats."""
    validation_hr: float
    """HR@10."""
    validation_ndcg: float
    """NDCG@10."""
    seconds: float
    """Wall time of the epoch with its validation."""
    cpu_seconds: float
    """Processor time of the same, all threads."""


@dataclass(slots=True)
class TrainingState:
    """All that decides how a run goes on."""

    model: Arrays = field(default_factory=list)
    optimizer: Arrays = field(default_factory=list)
    best: Arrays = field(default_factory=list)
    """The weights of the best epoch so far."""
    curve: list[Epoch] = field(default_factory=list)

    @property
    def best_epoch(self) -> Epoch:
        """The epoch with the highest validation NDCG@10, the first of equals."""
        return max(self.curve, key=lambda epoch: epoch.validation_ndcg)

    def save(self, path: Path) -> None:
        """Writes one file, whole or not at all."""
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            self.write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def write(self, file: IO[bytes]) -> None:
        """Writes into an open file what `load_state` reads."""
        arrays = {
            f"{kind}/{i}": array
            for kind in ("model", "optimizer", "best")
            for i, array in enumerate(getattr(self, kind))
        }
        curve = np.array(json.dumps([asdict(epoch) for epoch in self.curve]))
        np.savez(file, curve=curve, **arrays)


def load_state(path: Path | IO[bytes]) -> TrainingState | None:
    """What `save` or `write` wrote; None if there is no file, or one that cannot be read."""
    try:
        with np.load(path) as saved:
            curve = [Epoch(**epoch) for epoch in json.loads(str(saved["curve"]))]
            kinds = {kind: _listed(saved, kind) for kind in ("model", "optimizer", "best")}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None
    return TrainingState(curve=curve, **kinds)


def save_weights(path: Path, model: keras.Model) -> None:
    """The weights of a model by their paths, in one `.npz` file."""
    with path.open("wb") as file:
        np.savez(file, **{weight.path: weight.numpy() for weight in _learned(model)})


def load_weights(path: Path, model: keras.Model) -> None:
    """Gives the model the weights that `save_weights` wrote. Raises `KeyError` if one is missing."""
    with np.load(path) as saved:
        for weight in _learned(model):
            weight.assign(saved[weight.path])


def _learned(model: keras.Model) -> list[Any]:
    return list(model.trainable_variables)  # the others are states of random generators


def _listed(saved: np.lib.npyio.NpzFile, kind: str) -> Arrays:
    return [saved[f"{kind}/{i}"] for i in range(sum(name.startswith(f"{kind}/") for name in saved.files))]
