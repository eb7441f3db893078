"""One training step over several devices of a machine, or several workers.

Every replica (a device of a worker) sees the same batches, in the same order, and takes every n-th window of
each. What the replicas compute is added up over all of them, so that every worker makes the same step with
the gradient of the whole batch: the model is the one that a single device would have trained, but for the
masks of dropout and the order in which floats are added.

TensorFlow's strategies do the adding only. Variables are those of an ordinary process, one set for each
worker: Keras 3 makes none that mirror each other across workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import tensorflow as tf

from training.errors import TrainingError
from training.workers import ALONE, Workers

Compute = Callable[[tf.Tensor | int, int], Sequence[tf.Tensor]]
"""What one replica computes, given its number from 0 and how many there are."""


class Distribution:
    """The replicas of this process and of the other workers. Without a strategy there is one, and nothing is
    between it and its results."""

    def __init__(self, workers: Workers = ALONE, strategy: tf.distribute.Strategy | None = None) -> None:
        self.workers, self._strategy = workers, strategy
        self._add_up = tf.function(self._from_first, reduce_retracing=True, autograph=False)

    def sums(self, compute: Compute) -> list[tf.Tensor]:
        """Each tensor that `compute` gives, summed over all replicas. To be called in a `tf.function`."""
        if self._strategy is None:
            return list(compute(0, 1))

        def on_replica() -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            computed = compute(context.replica_id_in_sync_group, context.num_replicas_in_sync)
            # An input of the function has no device yet, and the strategy asks for one.
            summed: list[tf.Tensor] = context.all_reduce("SUM", [tf.identity(each) for each in computed])
            return summed

        return [self._strategy.experimental_local_results(each)[0] for each in self._strategy.run(on_replica)]

    def from_chief(self, said: bytes) -> bytes:
        """What the chief says here; what the others say is not heard. All workers must call it, in the same
        order, and wait in it for each other.

        Raises:
            TrainingError: another worker is gone.
        """
        if self.workers.count == 1:
            return said
        with others_lost(self.workers):
            size = int(self._add_up(tf.constant([len(said) if self.workers.chief else 0], tf.int64))[0])
            words = np.zeros(-(-size // 4), np.int32)
            if self.workers.chief:
                words = np.frombuffer(said.ljust(4 * len(words), b"\0"), np.int32)
            heard: bytes = self._add_up(tf.constant(words)).numpy().tobytes() if size else b""
        return heard[:size]

    def _from_first(self, value: tf.Tensor) -> tf.Tensor:
        return self.sums(lambda replica, _: [tf.where(tf.equal(replica, 0), value, tf.zeros_like(value))])[0]


def share_of(
    windows: dict[str, tf.Tensor], replica: tf.Tensor | int, replicas: int
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Every n-th window of a batch, and 1.0. A replica beyond the end of a small batch gets the last window,
    as an empty batch is none, and 0.0: what it weighs."""
    if replicas == 1:
        return windows, tf.constant(1.0)
    count = tf.shape(windows["items"])[0]
    rows = tf.range(tf.minimum(replica, count - 1), count, replicas)
    return {name: tf.gather(values, rows) for name, values in windows.items()}, tf.cast(
        replica < count, tf.float32
    )


@cache
def distribute(workers: Workers) -> Distribution:
    """The distribution of this process: joins the other workers, or takes all GPUs of the machine. Once for a
    process, and before anything else is done with TensorFlow.

    Raises:
        TrainingError: the workers do not find each other.
    """
    if workers.count > 1:
        cluster = tf.train.ClusterSpec({"worker": list(workers.addresses)})
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            cluster, task_type="worker", task_id=workers.index, rpc_layer="grpc"
        )
        try:
            return Distribution(workers, tf.distribute.MultiWorkerMirroredStrategy(resolver))
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"worker {workers.index + 1} of {workers.count} at {workers.addresses[workers.index]} cannot "
                f"join the others: {_first_line(error)}"
            ) from error
    several = len(tf.config.list_logical_devices("GPU")) > 1
    return Distribution(workers, tf.distribute.MirroredStrategy() if several else None)


@contextmanager
def others_lost(workers: Workers) -> Iterator[None]:
    """Says in a sentence that another worker is gone, which TensorFlow notices within seconds."""
    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    try:
        yield
    except (*gone, tf.errors.InternalError, tf.errors.DeadlineExceededError) as error:
        if workers.count == 1:
            raise
        raise TrainingError(
            f"worker {workers.index + 1} of {workers.count}: another worker is gone; start them all again, "
            "and the training goes on with the epoch that was begun"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
