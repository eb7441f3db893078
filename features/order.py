"""The order of events that happened within one second, where nothing says which came first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.schema import stable_hash


def lots(user_id: str, keys: NDArray[np.int64], draw: int = 0) -> NDArray[np.uint64]:
    """A number for each item of a user, as good as random, from these alone: events of one second go by it.

    Training, evaluation and the online store draw alike, so that a model meets the histories that it was
    judged by. In order of item id instead, a model learns that order. The mixing is the finalizer of
    SplitMix64.

    Args:
        keys: int64 `[L]`, `features.schema.item_key` of the items.
        draw: each value draws another order; the store holds that of 0.
    """
    mixed = keys.astype(np.uint64) + np.uint64(stable_hash(f"{draw} {user_id}") & (2**64 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
