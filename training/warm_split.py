"""Leave-one-out on a part of the catalogue: the other items are as if they had never been there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import History
from training.splits import Case, LeaveOneOut, Stage


@dataclass(frozen=True, slots=True)
class WarmItems:
    """Leave-one-out of histories without the items held out."""

    held_out: tuple[int, ...]
    """Catalogue indices from 1, ascending."""
    name = "leave-one-out without the items held out"

    def warm(self, history: History) -> History:
        """The events on the other items."""
        return history.where(~self.is_held_out(history.items))

    def is_held_out(self, items: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Of catalogue indices, any shape."""
        return np.isin(items, np.array(self.held_out, np.int32))

    def training_part(self, history: History) -> History:
        """See `Split`."""
        return LeaveOneOut().training_part(self.warm(history))

    def case(self, history: History, stage: Stage) -> Case | None:
        """See `Split`."""
        return LeaveOneOut().case(self.warm(history), stage)


def hold_out(item_users: NDArray[np.int64], share: float, seed: int) -> WarmItems:
    """A split without a share, drawn by lot, of the items that somebody took; at least one.

    Args:
        item_users: int `[N]`, users with each item.
    """
    had = np.flatnonzero(item_users) + 1
    count = max(1, round(share * len(had)))
    drawn = np.random.default_rng([seed, 5]).choice(had, count, replace=False)
    return WarmItems(tuple(np.sort(drawn).tolist()))
