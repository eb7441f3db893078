"""The best of many scores."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from training.search import best


@pytest.mark.parametrize("rows", [20, 499, 500, 501, 512, 1_000, 1_009])
@pytest.mark.parametrize("values", [3, 40, 10**6])
def test_the_best_are_those_of_one_step(rows: int, values: int) -> None:
    """From 500 on they are looked for by blocks; few values are many equal ones, and the first counts."""
    drawn = np.random.default_rng(rows + values).integers(0, values, (50, rows)).astype(np.float32)
    expected = tf.math.top_k(drawn, 10)
    top, places = tf.function(lambda scores: best(scores, 10))(drawn)
    np.testing.assert_array_equal(top, expected.values)
    np.testing.assert_array_equal(places, expected.indices)


@pytest.mark.parametrize("left", [0, 1, 9, 10, 11, 60])
def test_where_little_is_left_the_rest_is_nothing_in_its_order(left: int) -> None:
    """Filters leave -inf, of which the first places come, too, and none behind the end."""
    draw = np.random.default_rng(left)
    scores = np.full((30, 1_003), -np.inf, np.float32)
    for row in scores:
        row[draw.choice(row.size, left, replace=False)] = draw.integers(0, 3, left)
    expected = tf.math.top_k(scores, 10)
    top, places = best(tf.constant(scores), 10)
    np.testing.assert_array_equal(top, expected.values)
    np.testing.assert_array_equal(places, expected.indices)
