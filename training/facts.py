"""All that a model is built from besides its weights, and that is read again from the prepared data: features
of items, vocabulary of attributes, kinds of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from features.model_inputs import left_padded
from features.schema import surface_key
from training.baselines import Counts
from training.config import Config
from training.dataset import Prepared
from training.item_features import ItemInputs, item_inputs
from training.model import Histories, HistoryEncoder, build
from training.privacy import uninformed
from training.ranker import Ranker, build_ranker
from training.splits import Case
from training.user_features import UserVocabulary, no_attributes, read_vocabulary

_MIN_EVENTS = 5
"""On a surface, for it to count as one: a misspelt one teaches nothing."""
_MOST_SURFACES = 1_000
"""The busiest ones. More are no surfaces but, perhaps, addresses of pages."""


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Of one configuration, one prepared data set and the training part of one split."""

    config: Config
    items: ItemInputs
    vocabulary: UserVocabulary
    attributes: tuple[str, ...]
    """The attributes that the model is told, in the order of its input; empty: none."""
    kept_types: NDArray[np.bool_]
    """By number of `EventType`: whether such events are used."""
    surfaces: NDArray[np.int64]
    """`[S]`, ascending `surface_key` of the surfaces that the ranking network tells apart."""
    item_users: NDArray[np.int64]
    """`[N]`, training users of each item."""
    item_times: NDArray[np.int64]
    """`[N + 1]`, Unix seconds since when each item is there: published, or else first taken; 0: not known.
    Row 0 is padding."""
    published: NDArray[np.int64]
    """`[N + 1]`, Unix seconds before which an item is not recommended, 0: it always may be."""

    @property
    def popularity(self) -> NDArray[np.float32]:
        """`[N + 1]`, logarithm of one plus the training users of each item; row 0 is padding.

        An item that nobody took counts as the mean of the others: nobody was asked.
        """
        had = self.item_users > 0
        logarithms = np.log1p(self.item_users)
        usual = logarithms[had].mean() if had.any() else 0.0
        return np.concatenate([[0.0], np.where(had, logarithms, usual)]).astype(np.float32)

    def build(self) -> HistoryEncoder:
        """A new model."""
        config = self.config
        return build(
            config.model,
            self.items,
            attribute_rows=self.vocabulary.size,
            behaviour=config.behaviour,
        )

    def build_ranker(self) -> Ranker:
        """A new ranking network."""
        config = self.config
        return build_ranker(config.ranker, config.model.width, self.vocabulary.size, len(self.surfaces) + 1)

    @property
    def spec(self) -> Histories:
        """Types and shapes of what `histories` gives, for any number of requests."""
        length = self.config.model.history
        return Histories(
            items=tf.TensorSpec((None, length), tf.int32),
            times=tf.TensorSpec((None, length), tf.int64),
            types=tf.TensorSpec((None, length), tf.int32),
            asked=tf.TensorSpec((None, length), tf.int64),
            features=tf.TensorSpec((None, self.vocabulary.attributes), tf.int32),
        )

    def surface_rows(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """Rows of surfaces in the ranking network, int32 of the same shape; 0 for an unknown one."""
        if not len(self.surfaces):
            return np.zeros(keys.shape, np.int32)
        at = np.minimum(np.searchsorted(self.surfaces, keys), len(self.surfaces) - 1)
        return np.where(self.surfaces[at] == keys, at + 1, 0).astype(np.int32)

    def histories(self, cases: Sequence[Case]) -> Histories:
        """What the encoder reads of requests, as the served graph reads it."""
        length = self.config.model.history
        # As the graph has it where a caller sends events that do not count, which the gateway leaves out.
        newest = [case.known.where(_newest(len(case.known), length)) for case in cases]
        known = [history.where(self.kept_types[history.types]) for history in newest]
        times = left_padded([history.times for history in known], length, np.int64)
        request_time = np.array([[case.time] for case in cases], np.int64).reshape(len(cases), 1)
        return Histories(
            items=tf.constant(left_padded([history.items for history in known], length, np.int32)),
            times=tf.constant(times),
            types=tf.constant(left_padded([history.types for history in known], length, np.int32)),
            asked=tf.constant(np.concatenate([times[:, 1:], request_time], axis=1)),
            features=tf.constant(self.vocabulary.of_users([case.known.features for case in cases])),
        )


def gather_facts(config: Config, prepared: Prepared, counts: Counts, cache: Path) -> Facts:
    """Reads what `config` wants of the prepared data.

    Args:
        counts: of the training part; an item that nobody there took has no id vector. Private training
            ignores them, and every item has one.
        cache: where text encoders and the vectors of texts are kept.

    Raises:
        NoTextEncoder: the text encoder cannot be had.
    """
    if config.privacy.noise:
        # Else the model would tell, whatever noise it is trained with, which items somebody took, and when.
        counts = uninformed(len(prepared.items))
    published = prepared.published
    told = prepared.attributes if config.model.user_attributes else ()
    return Facts(
        config=config,
        items=item_inputs(
            config.model,
            prepared.items,
            prepared.item_texts,
            prepared.item_vectors,
            prepared.categories,
            counts.item_users,
            cache,
        ),
        vocabulary=read_vocabulary(prepared.folder / "users.parquet", told) if told else no_attributes(),
        attributes=told,
        kept_types=np.array(config.behaviour.type_weights()) > 0,
        surfaces=_surfaces(prepared) if config.ranker.train else np.zeros(0, np.int64),
        item_users=counts.item_users,
        published=np.concatenate([[0], published]),
        item_times=np.concatenate([[0], np.where(published > 0, published, counts.first_times)]),
    )


def _newest(length: int, count: int) -> NDArray[np.bool_]:
    return np.arange(length) >= length - count


def _surfaces(prepared: Prepared) -> NDArray[np.int64]:
    """Those that are worth a row of the ranking network's."""
    events: Counter[str] = Counter()
    for batch in pq.ParquetFile(prepared.events_path).iter_batches(columns=["surface"]):
        for counted in pc.value_counts(batch["surface"].drop_null()).to_pylist():
            events[counted["values"]] += counted["counts"]
    often = [name for name, count in events.most_common(_MOST_SURFACES) if name and count >= _MIN_EVENTS]
    return np.unique(np.array([surface_key(name) for name in often], np.int64))
