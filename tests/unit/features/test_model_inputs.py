from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.model_inputs import left_padded


@given(st.lists(st.lists(st.integers(1, 2**62), max_size=12), max_size=5), st.integers(1, 8))
def test_each_row_ends_with_the_newest_values_and_begins_with_zeros(
    rows: list[list[int]], width: int
) -> None:
    padded = left_padded([np.array(row, np.int64) for row in rows], width, np.int64)
    assert padded.shape == (len(rows), width)
    for row, values in zip(padded.tolist(), rows, strict=True):
        kept = values[-width:]
        assert row == [0] * (width - len(kept)) + kept
