"""How a batch is shared out. What real workers and devices make of it: tests/integration/test_workers.py."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from training.distribution import Distribution, others_lost, share_of
from training.errors import TrainingError
from training.workers import ALONE, Workers

TWO = Workers(("10.0.0.1:2222", "10.0.0.2:2222"), 1)


def batch(rows):
    return {"items": tf.reshape(tf.range(rows * 2), (rows, 2)), "features": tf.range(rows)[:, None]}


@pytest.mark.parametrize(("rows", "replicas"), [(7, 3), (6, 2), (4, 4)])
def test_every_window_goes_to_one_replica(rows, replicas):
    shares = [share_of(batch(rows), replica, replicas) for replica in range(replicas)]
    assert [float(weight) for _, weight in shares] == [1.0] * replicas
    taken = np.concatenate([share["items"].numpy() for share, _ in shares])
    assert sorted(taken[:, 0]) == [2 * row for row in range(rows)]
    for share, _ in shares:
        assert (share["items"].numpy()[:, :1] == 2 * share["features"].numpy()).all()


def test_a_replica_that_a_small_batch_has_nothing_for_weighs_nothing():
    share, weight = share_of(batch(2), 3, 4)
    assert len(share["items"]) == 1  # an empty batch is none
    assert float(weight) == 0.0


def test_a_process_alone_has_nothing_between_itself_and_its_results():
    alone, windows = Distribution(), batch(3)
    assert alone.from_chief(b"said") == b"said"
    given = []
    assert alone.sums(lambda replica, replicas: given.append((replica, replicas)) or [7]) == [7]
    assert given == [(0, 1)]
    assert share_of(windows, 0, 1)[0] is windows


def test_an_error_is_that_of_a_lost_worker_only_if_there_are_others():
    error = tf.errors.UnavailableError(None, None, "task 0 is gone")
    with pytest.raises(TrainingError, match="worker 2 of 2: another worker is gone"), others_lost(TWO):
        raise error
    with pytest.raises(tf.errors.UnavailableError), others_lost(ALONE):
        raise error
