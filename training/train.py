"""Training the transformer: epochs over `tf.data`, AdamW, early stopping on validation NDCG@10, resumable at
any moment.

A run is decided by its seed, its data and its configuration: the order of the data and the dropout masks of
an epoch follow from (seed, epoch) alone, so a run that was interrupted gives the curve that it would have
given anyway (up to the order in which threads add floats).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from features.model_inputs import left_padded
from training.baselines import Counts
from training.checkpoint import Epoch, TrainingState, load_state
from training.config import Config, TrainingConfig
from training.dataset import History, Prepared, training_windows
from training.errors import TrainingError
from training.evaluate import evaluate
from training.loss import full_softmax, sampled_softmax
from training.model import HistoryEncoder, build
from training.splits import Split

OnEpoch = Callable[[Epoch, Epoch], None]
"""Called after each epoch with it and the best epoch so far."""
OnBatch = Callable[[int, float], None]
"""Called after each batch with its number in the epoch, from 1, and its loss."""


class ModelRanker:
    """A model as `evaluate` wants it."""

    name = "transformer"

    def __init__(self, model: HistoryEncoder) -> None:
        self._model = model
        self._score = tf.function(
            self._scores, input_signature=[tf.TensorSpec((None, model.config.history), tf.int32)]
        )

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        """float32 `[B, N]`, from the newest events of each history.

        Raises:
            TrainingError: the training has diverged.
        """
        padded = left_padded([history.items for history in histories], self._model.config.history, np.int32)
        scores: NDArray[np.float32] = self._score(padded).numpy()
        if not np.isfinite(scores).all():
            raise TrainingError("the model's scores are not finite; train with a lower learning_rate")
        return scores

    def _scores(self, history: tf.Tensor) -> tf.Tensor:
        return tf.matmul(self._model(history, newest_only=True), self._model.item_vectors, transpose_b=True)


class Trainer:
    """One model in training."""

    def __init__(self, config: Config, prepared: Prepared, split: Split, counts: Counts, seed: int) -> None:
        self._config, self._prepared, self._split, self._counts, self._seed = (
            config,
            prepared,
            split,
            counts,
            seed,
        )
        keras.utils.set_random_seed(seed)
        self.model = build(config.model, len(prepared.items))
        self._dropouts = [
            layer for layer in self.model._flatten_layers() if isinstance(layer, keras.layers.Dropout)
        ]
        self._optimizer = _optimizer(config.training, self.model)
        shares = np.concatenate([[0], counts.item_users / max(1, counts.item_users.sum())])
        self._shares = tf.constant(shares, tf.float32)
        self._sampled = len(prepared.items) > config.training.sampled_softmax_threshold
        self._step = tf.function(
            self._train_step, input_signature=[tf.TensorSpec((None, config.model.history + 1), tf.int32)]
        )

    def run(self, checkpoint: Path, on_epoch: OnEpoch, on_batch: OnBatch) -> TrainingState:
        """Trains until validation stops getting better, going on from `checkpoint` if it is there.

        On return the model has the weights of the best epoch.

        Raises:
            TrainingError: the training diverged; the checkpoint is of the last epoch before.
        """
        state = load_state(checkpoint) or TrainingState()
        if state.curve:
            self.model.set_weights(state.model)
            for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
                variable.assign(value)
        ranker, limits = ModelRanker(self.model), self._config.training
        while not _finished(state, limits):
            epoch = self._epoch(len(state.curve) + 1, ranker, on_batch)
            state.curve.append(epoch)
            state.model = self.model.get_weights()
            state.optimizer = [variable.numpy() for variable in self._optimizer.variables]
            if state.best_epoch is epoch:
                state.best = state.model
            state.save(checkpoint)
            on_epoch(epoch, state.best_epoch)
        self.model.set_weights(state.best)
        return state

    def _epoch(self, number: int, ranker: ModelRanker, on_batch: OnBatch) -> Epoch:
        started, cpu_started = time.perf_counter(), time.process_time()
        epoch_seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0] >> 1)
        for i, dropout in enumerate(self._dropouts):
            dropout.seed_generator.state.assign([epoch_seed, i])
        model, training = self._config.model, self._config.training
        windows = training_windows(
            self._prepared, self._split, model.history, training.batch_size, epoch_seed
        )
        total, predicted = 0.0, 0
        for i, batch in enumerate(windows, start=1):
            step = int(self._optimizer.iterations) + 1
            self._optimizer.learning_rate.assign(_rate(training, number, step))
            loss, count = self._step(batch)
            loss, count = float(loss), int(count)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {number}, batch {i}: the loss is not finite; train with a lower learning_rate"
                )
            total, predicted = total + loss, predicted + count
            on_batch(i, loss / max(1, count))
        judged = evaluate(
            ranker,
            self._prepared,
            self._split,
            "validation",
            cutoffs=(min(10, len(self._prepared.items)),),
            item_users=self._counts.item_users,
            users=self._counts.users,
        ).metrics
        by_name = {name.split("@")[0]: value for name, value in judged.items()}
        return Epoch(
            epoch=number,
            loss=total / max(1, predicted),
            validation_hr=by_name["hr"],
            validation_ndcg=by_name["ndcg"],
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_started,
        )

    def _train_step(self, windows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Sum of the losses and the number of positions of one batch, int32 `[b, T + 1]`."""
        history, following = windows[:, :-1], windows[:, 1:]
        real = tf.not_equal(history, 0)
        with tf.GradientTape() as tape:
            vectors = tf.boolean_mask(self.model(history, training=True), real)  # (P, W)
            targets = tf.boolean_mask(following, real)  # (P,)
            if self._sampled:
                seed = tf.stack([tf.cast(self._optimizer.iterations, tf.int32), self._seed])
                losses = sampled_softmax(
                    vectors,
                    targets,
                    self.model.items,
                    self._shares,
                    self._config.training.sampled_negatives,
                    seed,
                )
            else:
                losses = full_softmax(vectors, targets, self.model.items)
            loss = tf.reduce_mean(losses)
        variables = self.model.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return tf.reduce_sum(losses), tf.size(losses)


def _optimizer(config: TrainingConfig, model: HistoryEncoder) -> keras.optimizers.Optimizer:
    """AdamW; biases, norms and positions do not decay. `_rate` sets the learning rate before every step."""
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, beta_2=0.98)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "positions"])
    optimizer.build(model.trainable_variables)
    return optimizer


def _rate(config: TrainingConfig, epoch: int, step: int) -> float:
    """The learning rate of a step, both from 1: linear warm-up times a cosine that falls epoch by epoch."""
    warm = min(1.0, step / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / config.epochs))


def _finished(state: TrainingState, limits: TrainingConfig) -> bool:
    done = len(state.curve)
    return done >= limits.epochs or (done > 0 and done - state.best_epoch.epoch >= limits.patience)
