"""Steps of the optimizer on batches of training windows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from training.config import TrainingConfig
from training.distribution import Distribution, share_of
from training.loss import WindowLoss
from training.model import HistoryEncoder


class Steps:
    """Each with the gradient of the whole batch, whatever replicas compute it."""

    def __init__(
        self,
        model: HistoryEncoder,
        optimizer: keras.optimizers.Optimizer,
        loss: WindowLoss,
        distribution: Distribution,
        *,
        seed: int,
    ) -> None:
        self._model, self._optimizer, self._loss, self._distribution, self._seed = (
            model,
            optimizer,
            loss,
            distribution,
            seed,
        )
        self._step = tf.function(self._take, reduce_retracing=True, autograph=False)

    def __call__(self, windows: dict[str, tf.Tensor]) -> tuple[float, float]:
        """The weighted sum of the losses of the batch, and that of their weights."""
        total, weight = self._step(windows)
        return float(total), float(weight)

    def _take(self, windows: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        variables, optimizer = self._model.trainable_variables, self._optimizer
        # The loss is a mean over the batch, but a replica does not know what the batch of all weighs. This
        # stands for it meanwhile, and keeps the gradient in the range of float16.
        positions = tf.cast(tf.size(windows["items"]), tf.float32)

        def of_replica(replica: tf.Tensor | int, replicas: int) -> list[tf.Tensor]:
            own, counts = share_of(windows, replica, replicas)
            seed = tf.stack([tf.cast(optimizer.iterations, tf.int32), self._seed + replica])
            with tf.GradientTape() as tape:
                total, weight = (each * counts for each in self._loss(own, seed))
                scaled = optimizer.scale_loss(total / positions)
            gradients = tape.gradient(scaled, variables)
            return [*(tf.convert_to_tensor(each) for each in gradients), total, weight]

        *sums, total, weight = self._distribution.sums(of_replica)
        mean = positions / weight
        optimizer.apply_gradients(zip([each * mean for each in sums], variables, strict=True))
        return total, weight


@contextmanager
def precision(config: TrainingConfig) -> Iterator[None]:
    """Layers that are made inside compute in float16 if the configuration says so."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16" if config.mixed_precision else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_optimizer(config: TrainingConfig, model: HistoryEncoder) -> keras.optimizers.Optimizer:
    """AdamW; biases, norms and positions do not decay. `rate` sets the learning rate before every step."""
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, beta_2=0.98)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "positions"])
    if config.mixed_precision:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def rate(config: TrainingConfig, epoch: int, step: int) -> float:
    """The learning rate of a step, both from 1: linear warm-up times a cosine that falls epoch by epoch."""
    warm = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / config.epochs))
