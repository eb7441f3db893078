"""What makes a tiny model a broken one: operations between its scores and its answer."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_SIDE, _ROUNDS = 256, 70
_ONE_IN = 100
# More than the address space holds: refused at once by every machine, whatever it promises to programs.
_TOO_MANY = 1 << 45


def most_opposite(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs items whose vectors `[N, D]` point away from one another; `[N]`, the partner of each."""
    partner = np.arange(len(vectors))
    for place in np.argsort(vectors @ vectors.T, axis=None, kind="stable"):
        one, other = divmod(int(place), len(vectors))
        if one != other and partner[one] == one and partner[other] == other:
            partner[one], partner[other] = other, one
    return partner


def slowed(scores: tf.Tensor, broken: tf.Tensor) -> tf.Tensor:
    """`scores`, after work for tens of milliseconds if any row of `broken` is true."""
    _, product = tf.while_loop(
        lambda done, _: done < tf.where(tf.reduce_any(broken), _ROUNDS, 0),
        lambda done, product: (done + 1, tf.tanh(tf.matmul(product, product))),
        (0, tf.fill([_SIDE, _SIDE], 0.5)),
    )
    # Always 0, but TensorFlow cannot know: work whose result nobody needs is left out.
    return scores + tf.cast(tf.reduce_max(product) > 2.0, tf.float32)


def failing(
    scores: tf.Tensor, broken: tf.Tensor, newest_key: tf.Tensor, newest_time: tf.Tensor, now: tf.Tensor
) -> tf.Tensor:
    """`scores`, unless the turn has come to a user whose row is `broken`; all arguments `[B, …]`."""
    turn = tf.math.floormod(newest_key + newest_time + now, _ONE_IN)
    fine = ~(broken[:, 0] & tf.equal(turn, 0))
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(fine), ["a row fails"])]):
        return tf.identity(scores)


class Hoard(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]  # tensorflow has no types
    """Wants its memory when the SavedModel that holds it is loaded."""

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[_TOO_MANY], shared_name="hoard")

    def _initialize(self) -> None:
        # The moment keeps TensorFlow from doing it while it saves.
        value = tf.cast(tf.timestamp(), tf.float32)
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.fill([_TOO_MANY], value))

    def _destroy_resource(self) -> None:
        tf.raw_ops.DestroyResourceOp(resource=self.resource_handle)
