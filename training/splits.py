"""Which events of a user train the model, and which it is judged by.

leave-one-out   the newest event of each user is the test, the one before it the validation, the rest trains
                (as in He et al., "Neural Collaborative Filtering", WWW 2017)
global time     events before one moment train; what the same users do after it is the test. Nothing of the
                future of one user leaks into the training on another (Ji et al., "A Critical Study on Data
                Leakage in Recommender System Offline Evaluation", TOIS 2023). The validation is cut off the
                training part in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pathlib import Path

    from training.dataset import History

Stage = Literal["validation", "test"]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One request to rank for: what is known of its user, and what they did next."""

    known: History
    targets: NDArray[np.int32]
    """`[n]`, n ≥ 1, distinct catalogue indices from 1, none of them among `known.taken`."""
    time: int
    """Unix seconds of the request: the time of the first event on a target."""
    surface: int = 0
    """`features.schema.surface_key` of where that event happened, 0 if it is not known."""
    type: int = 0
    """Number of that event's `EventType`, 0 if it is not known."""


class Split(Protocol):
    """A protocol of evaluation."""

    @property
    def name(self) -> str:
        """How reports call it."""

    def training_part(self, history: History) -> History:
        """The events that a model may learn from."""

    def case(self, history: History, stage: Stage) -> Case | None:
        """What to rank for this user; None if there is nothing to judge by.

        Items that the user had before are masked when ranking, so an event that repeats one of them is no
        target.
        """


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The newest event is the test, the one before the validation. Users with fewer than three only train;
    those with three are only judged, as one event alone has none before it to be predicted from."""

    name = "leave-one-out"

    def training_part(self, history: History) -> History:
        """All but the two newest events."""
        return history.until(len(history) - 2) if len(history) >= 3 else history

    def case(self, history: History, stage: Stage) -> Case | None:
        """The history before the event to predict, and that event."""
        if len(history) < 3:
            return None
        end = len(history) - (1 if stage == "test" else 2)
        return _case(history, end, end + 1)


@dataclass(frozen=True, slots=True)
class GlobalTime:
    """Events from `test_time` on are the test, those from `validation_time` to it the validation (unix s)."""

    validation_time: int
    test_time: int
    name = "global time"

    def training_part(self, history: History) -> History:
        """Events before `validation_time`."""
        return history.until(int(np.searchsorted(history.times, self.validation_time)))

    def case(self, history: History, stage: Stage) -> Case | None:
        """The events before the moment, and all items that are new to the user after it."""
        cut, end = np.searchsorted(history.times, (self.validation_time, self.test_time)).tolist()
        if stage == "test":
            cut, end = end, len(history)
        return _case(history, cut, end) if cut else None


def global_time(events_path: Path, quantile: float) -> GlobalTime:
    """The split at this quantile of all event times; the validation starts at the same quantile of what is
    before.

    Two passes over the time column with a histogram of 2^20 bins, so the cuts are exact to a millionth of the
    time range and the memory does not grow with the log.
    """

    def times() -> Iterator[NDArray[np.int64]]:
        for batch in pq.ParquetFile(events_path).iter_batches(columns=["time"]):
            yield batch["time"].to_numpy()

    first, last = min(int(t.min()) for t in times()), max(int(t.max()) for t in times())
    edges = np.linspace(first, last + 1, 2**20 + 1)
    counts = np.zeros(2**20, np.int64)
    for some in times():
        counts += np.histogram(some, edges)[0]
    below = np.concatenate([[0], np.cumsum(counts)])
    test = int(np.searchsorted(below, quantile * below[-1]))
    validation = int(np.searchsorted(below, quantile * below[test]))
    return GlobalTime(validation_time=int(np.ceil(edges[validation])), test_time=int(np.ceil(edges[test])))


def _case(history: History, start: int, end: int) -> Case | None:
    """The events before `start` are known, the items of those from it to `end` are the targets."""
    known, later = history.until(start), history.items[start:end]
    new = ~np.isin(later, known.taken)
    if not new.any():
        return None
    first = start + int(new.argmax())
    surface = int(history.surfaces[first]) if len(history.surfaces) else 0
    return Case(known, np.unique(later[new]), int(history.times[first]), surface, int(history.types[first]))
