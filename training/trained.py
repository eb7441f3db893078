"""A trained model as a whole: encoder, item vectors, ranking network; kept in a run's folder and found again.

weights.npz   the encoder, by the paths of its weights
items.npz     vectors and levels of all items, the mapping for items that nobody took
ranker.npz    the ranking network, if it is served
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.checkpoint import load_weights, save_weights
from training.cold_items import ColdMapping, ItemVectors, fit_mapping, with_mapping
from training.errors import TrainingError
from training.evaluate import Ranker as Judgeable
from training.facts import Facts
from training.model import HistoryEncoder
from training.rank_training import RankedRetrieval
from training.ranker import Ranker
from training.splits import Case
from training.train import ModelRanker

_SAMPLED_USERS = 2_000
_AT_ONCE = 128


@dataclass(frozen=True, eq=False)  # no slots: cached_property needs a __dict__
class Trained:
    """Everything that an answer is computed from."""

    facts: Facts
    model: HistoryEncoder
    items: ItemVectors
    mapping: ColdMapping | None
    ranker: Ranker | None
    """None: the retrieval answers alone."""

    @cached_property
    def retrieval(self) -> ModelRanker:
        """The retrieval alone."""
        return ModelRanker(self.model, self.facts, self.items)

    @cached_property
    def judgeable(self) -> Judgeable:
        """What is served, as `evaluate` wants it."""
        if self.ranker is None:
            return self.retrieval
        return RankedRetrieval(self.retrieval, self.ranker, self.facts)

    def save(self, folder: Path) -> None:
        """Writes the files into a run's folder."""
        save_weights(folder / "weights.npz", self.model)
        arrays: dict[str, Any] = {"vectors": self.items.vectors, "levels": self.items.levels}
        if self.mapping is not None:
            arrays |= {"mapping": self.mapping.weights, "level": np.float32(self.mapping.level)}
        np.savez(folder / "items.npz", allow_pickle=False, **arrays)
        (folder / "ranker.npz").unlink(missing_ok=True)
        if self.ranker is not None:
            save_weights(folder / "ranker.npz", self.ranker)


def load_trained(folder: Path, facts: Facts) -> Trained:
    """What `Trained.save` wrote.

    Raises:
        TrainingError: the files are not whole, or of another model.
    """
    model = facts.build()
    try:
        load_weights(folder / "weights.npz", model)
        with np.load(folder / "items.npz") as saved:
            items = ItemVectors(saved["vectors"], saved["levels"])
            mapping = ColdMapping(saved["mapping"], float(saved["level"])) if "mapping" in saved else None
        ranker = None
        if (folder / "ranker.npz").exists():
            ranker = facts.build_ranker()
            load_weights(folder / "ranker.npz", ranker)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{folder}: holds no whole model ({error}); train it again") from error
    if not np.isfinite(items.vectors).all():
        raise TrainingError(
            f"{folder}: holds item vectors that are not finite; train with a lower learning_rate"
        )
    return Trained(facts, model, items, mapping, ranker)


def with_cold_items(facts: Facts, model: HistoryEncoder, cases: Sequence[Case]) -> Trained:
    """A model just trained, with vectors for the items that nobody took.

    Args:
        cases: requests whose user vectors set the level of such items; a sample of them is used.
    """
    table = model.table().numpy()
    sample = [cases[i] for i in np.linspace(0, len(cases) - 1, min(_SAMPLED_USERS, len(cases))).astype(int)]
    mapping = None
    if facts.items.width:  # even if nothing needs it now: items may be added later (training.extension)
        users = np.zeros((0, table.shape[1]), np.float32)
        if not facts.config.privacy.noise:  # a private model tells of users only what its noised weights do
            lots = [sample[at : at + _AT_ONCE] for at in range(0, len(sample), _AT_ONCE)]
            vectors = tf.constant(table)
            users = np.concatenate(
                [model(facts.histories(lot), vectors, newest_only=True).numpy() for lot in lots]
            )
        mapping = fit_mapping(facts.items.values[1:], table[1:], facts.item_users, users)
    items = with_mapping(table, facts.items.had, facts.items.values, mapping)
    return Trained(facts, model, items, mapping, None)
