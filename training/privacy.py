"""Differentially private training of the encoder (DP-SGD), and what it spends.

Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016): the gradient of every example is clipped
to a length, the clipped ones are summed, normal noise is added, and the sum is divided by the expected size
of the batch. The example here is a *user*: each has one window, the newest events of their training part, and
is in a step's batch with the same probability, by a coin of their own (Poisson sampling), as the accountant
assumes. So the weights that come out are (epsilon, delta)-differentially private for adding or removing one
user with all they ever did.

What it covers and what not is in docs/decisions/0017-private-training.md. The coins and the noise come from
the operating system's entropy and not from the seed, as who knows the noise can take it off: a private run
cannot be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from training.baselines import Counts
from training.config import Config
from training.distribution import Distribution
from training.errors import TrainingError
from training.loss import WindowLoss
from training.model import HistoryEncoder
from training.windows import Arrays

GradientOf = Callable[[tf.Tensor], tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]]
"""Of the user in this row: gradients, and the sum of the losses and of their weights."""


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """What `steps` steps of the sampled Gaussian mechanism spend, by its Rényi divergence (Mironov, Talwar &
    Zhang, "Rényi Differential Privacy of the Sampled Gaussian Mechanism", 2019). An upper bound.

    Args:
        noise: standard deviation over the clipping length, above 0.
        rate: the probability of a user to be in a step's batch.
        delta: the chance of failure that it is stated for.
    """
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # takes a second, for a rare case
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant()
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return float(accountant.get_epsilon(delta))


def uninformed(item_count: int) -> Counts:
    """Counts that say the same of every item, for a model that must learn nothing but by noised gradients."""
    return Counts(1, np.ones(item_count, np.int64), np.zeros(item_count, np.int64), None)


def poisson_batches(
    windows: Arrays, rate: float, steps: int, random: np.random.Generator
) -> Iterator[dict[str, tf.Tensor]]:
    """`steps` batches, each with every row by a coin of its own: of any size, and perhaps empty."""
    count = len(windows["items"])
    for _ in range(steps):
        rows = np.flatnonzero(random.random(count) < rate)
        yield {name: tf.constant(values[rows]) for name, values in windows.items()}


def clipped_sum(
    gradient_of: GradientOf, rows: tf.Tensor, like: Sequence[tf.Variable], clip: float
) -> list[tf.Tensor]:
    """The gradients of all `rows`, int32 `[n]`, each shortened to the length `clip` over all variables, added
    up; then the sum of the losses and of their weights. One row after the other: memory for one gradient."""

    def add(i: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        gradients, total, weight = gradient_of(rows[i])
        factor = clip / tf.maximum(tf.linalg.global_norm(gradients), clip)
        of_row = [*(gradient * factor for gradient in gradients), total, weight]
        return i + 1, [one + other for one, other in zip(sums, of_row, strict=True)]

    zeros = [tf.zeros_like(variable) for variable in like] + [tf.constant(0.0), tf.constant(0.0)]
    _, sums = tf.while_loop(
        lambda i, _: i < tf.size(rows), add, (tf.constant(0), zeros), parallel_iterations=1
    )
    return list(sums)


def noised(sums: Sequence[tf.Tensor], deviation: float, seed: tf.Tensor) -> list[tf.Tensor]:
    """With normal noise of this deviation added to every number. `seed` is int64 `[2]`, another each time."""
    key, step = tf.unstack(seed)
    return [
        each + deviation * tf.random.stateless_normal(tf.shape(each), [key, step * len(sums) + i])
        for i, each in enumerate(sums)
    ]


class PrivateSteps:
    """The steps of private training, and who is in the batch of each."""

    def __init__(
        self,
        config: Config,
        model: HistoryEncoder,
        optimizer: keras.optimizers.Optimizer,
        windows: Arrays,
        distribution: Distribution,
        *,
        secret: bytes,
    ) -> None:
        """`windows` has one row for each user; `secret`, 8 bytes, decides coins and noise, and every worker
        has the same.

        Raises:
            TrainingError: `privacy.delta` is too large for so few users.
        """
        self._model, self._optimizer, self._windows, self._distribution = (
            model,
            optimizer,
            windows,
            distribution,
        )
        self._privacy = config.privacy
        self._users = len(windows["items"])
        # From there on, publishing one user drawn by lot as they are would pass for private.
        if self._privacy.delta >= 1 / self._users:
            raise TrainingError(
                f"privacy.delta is {self._privacy.delta:g}, and must be below one over the number of users "
                f"trained on, 1 / {self._users:,} = {1 / self._users:.3g}; set it lower"
            )
        self._rate = min(1.0, config.training.batch_size / self._users)
        self._secret = int.from_bytes(secret, "little", signed=True)
        # Over the whole catalogue: a sample would be drawn from what others took.
        whole = config.training.model_copy(update={"sampled_softmax_threshold": model.item_count})
        everything = uninformed(model.item_count).item_users
        self._loss = WindowLoss(
            config.model_copy(update={"training": whole}),
            model,
            np.concatenate([[False], everything > 0]),
            everything,
        )
        self._step = tf.function(self._take, reduce_retracing=True, autograph=False)

    def batches(self, epoch: int) -> Iterator[dict[str, tf.Tensor]]:
        """The batches of an epoch: so many that a user is expected in one of them."""
        random = np.random.default_rng([self._secret % 2**64, epoch])
        return poisson_batches(self._windows, self._rate, math.ceil(1.0 / self._rate), random)

    @property
    def epsilon(self) -> float:
        """What all steps of the optimizer up to now have spent."""
        return epsilon(self._privacy.noise, self._rate, int(self._optimizer.iterations), self._privacy.delta)

    def __call__(self, windows: dict[str, tf.Tensor]) -> tuple[float, float]:
        """One step; the weighted sum of the losses of the batch, and that of their weights."""
        total, weight = self._step(windows)
        return float(total), float(weight)

    def _take(self, windows: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        variables, clip = self._model.trainable_variables, self._privacy.clip

        def gradient_of(row: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
            own = {name: values[row][None] for name, values in windows.items()}
            with tf.GradientTape() as tape:
                # The mean over the user's own positions: nobody else's have a say in it.
                total, weight = self._loss(own, tf.constant([0, 0]))
                mean = tf.math.divide_no_nan(total, weight)
            return [tf.convert_to_tensor(each) for each in tape.gradient(mean, variables)], total, weight

        def of_replica(replica: tf.Tensor | int, replicas: int) -> list[tf.Tensor]:
            rows = tf.range(replica, tf.shape(windows["items"])[0], replicas)
            return clipped_sum(gradient_of, rows, variables, clip)

        *sums, total, weight = self._distribution.sums(of_replica)
        # Every worker adds the same noise to the same sum: it is there once.
        seed = tf.stack([tf.constant(self._secret, tf.int64), tf.cast(self._optimizer.iterations, tf.int64)])
        expected = self._rate * self._users
        gradients = [each / expected for each in noised(sums, self._privacy.noise * clip, seed)]
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return total, weight
