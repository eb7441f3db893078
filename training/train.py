"""Training the transformer: epochs over `tf.data`, AdamW, early stopping on validation NDCG@10, resumable at
any moment.

A run is decided by its seed, its data and its configuration: the order of the data and the dropout masks of
an epoch follow from (seed, epoch) alone, so a run that was interrupted gives the curve that it would have
given anyway (up to the order in which threads add floats). A private run (`training.privacy`) is the
exception: its noise is nobody's to know.

Several workers go through this together, each with the same windows and the same weights. The chief alone
has a checkpoint and judges by the validation; the others are told what came of it.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.baselines import Counts
from training.checkpoint import Epoch, TrainingState, load_state
from training.cold_items import ItemVectors
from training.dataset import Prepared
from training.distribution import Distribution, others_lost
from training.errors import TrainingError
from training.evaluate import evaluate
from training.facts import Facts
from training.loss import WindowLoss
from training.model import Histories, HistoryEncoder
from training.privacy import PrivateSteps
from training.splits import Case, Split
from training.steps import Steps, make_optimizer, precision, rate
from training.windows import newest_windows, training_windows

OnEpoch = Callable[[Epoch, Epoch], None]
"""Called after each epoch with it and the best epoch so far."""
OnBatch = Callable[[int, float], None]
"""Called after each batch with its number in the epoch, from 1, and its loss."""


class ModelRanker:
    """A model as `evaluate` wants it."""

    name = "transformer"

    def __init__(self, model: HistoryEncoder, facts: Facts, items: ItemVectors | None = None) -> None:
        """Without `items` the model's own table is used, and nothing is known of items that nobody took."""
        self._model, self._facts = model, facts
        self.table = tf.Variable(model.table() if items is None else items.vectors, trainable=False)
        levels = np.zeros(model.item_count, np.float32) if items is None else items.levels[1:]
        self._levels = tf.constant(levels)
        signature = [facts.spec]
        self._score = tf.function(self._scores, input_signature=signature, autograph=False)
        self._encode = tf.function(self._vectors, input_signature=signature, autograph=False)

    def refresh(self) -> None:
        """Takes over what the model has learned since: once an epoch, as the features of all items through
        their network cost more than a batch of users."""
        self.table.assign(self._model.table())

    def scores(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """float32 `[B, N]`, from the newest events of each history.

        Raises:
            TrainingError: the training has diverged.
        """
        scores: NDArray[np.float32] = self._score(self._facts.histories(cases)).numpy()
        if not np.isfinite(scores).all():
            raise TrainingError("the model's scores are not finite; train with a lower learning_rate")
        return scores

    def vectors(self, cases: Sequence[Case]) -> tf.Tensor:
        """float32 `[B, W]`: the user vectors."""
        return self._encode(self._facts.histories(cases))

    def _vectors(self, histories: Histories) -> tf.Tensor:
        return self._model(histories, self.table, newest_only=True)

    def _scores(self, histories: Histories) -> tf.Tensor:
        vectors = self._vectors(histories)
        return tf.matmul(vectors, self.table[1:], transpose_b=True) + self._levels


class Trainer:
    """One model in training."""

    def __init__(
        self,
        facts: Facts,
        prepared: Prepared,
        split: Split,
        counts: Counts,
        seed: int,
        distribution: Distribution | None = None,
    ) -> None:
        """`counts` are for the figures of the validation. Without a distribution this process trains alone,
        on one device."""
        self._facts, self._prepared, self._split, self._counts, self._seed = (
            facts,
            prepared,
            split,
            counts,
            seed,
        )
        config = self._config = facts.config
        self._distribution = distribution or Distribution()
        keras.utils.set_random_seed(seed)
        with precision(config.training):
            self.model = facts.build()
            self._optimizer = make_optimizer(config.training, self.model)
        self._dropouts = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0  # else it draws nothing
        ]
        self._private = self._private_steps() if config.privacy.noise else None
        self._step = self._private or self._steps()

    def run(self, checkpoint: Path | None, on_epoch: OnEpoch, on_batch: OnBatch) -> TrainingState:
        """Trains until validation stops getting better, going on from `checkpoint` if it is there. Private
        training goes through all its epochs, as to stop by the data would tell of it.

        On return the model has the weights of the epoch that is kept. Workers that are not the chief have no
        checkpoint.

        Raises:
            TrainingError: the training diverged; the checkpoint is of the last epoch before. Or another
                worker is gone.
        """
        with others_lost(self._distribution.workers):
            return self._run(checkpoint, on_epoch, on_batch)

    def kept(self, state: TrainingState) -> Epoch:
        """The epoch whose weights are the model: the best so far, of private training the last."""
        return state.curve[-1] if self._private else state.best_epoch

    @property
    def epsilon(self) -> float | None:
        """What private training has spent on the weights as they are; None for any other."""
        return self._private.epsilon if self._private else None

    def _run(self, checkpoint: Path | None, on_epoch: OnEpoch, on_batch: OnBatch) -> TrainingState:
        state = self._begin(checkpoint)
        ranker = ModelRanker(self.model, self._facts)
        while not self._finished(state):
            epoch = self._epoch(len(state.curve) + 1, ranker, on_batch)
            state.curve.append(epoch)
            self._note(state)
            if self.kept(state) is epoch:
                state.best = state.model
            if checkpoint is not None:
                state.save(checkpoint)
            on_epoch(epoch, self.kept(state))
        self.model.set_weights(state.best)
        return state

    def _begin(self, checkpoint: Path | None) -> TrainingState:
        """The state to go on from, the chief's, with its weights taken over."""
        workers = self._distribution.workers
        state = (load_state(checkpoint) if checkpoint is not None else None) or TrainingState()
        if workers.count > 1:
            if not state.curve:
                self._note(state)  # of one seed, yet another processor may draw other last digits
            said = BytesIO()
            state.write(said)
            heard = load_state(BytesIO(self._distribution.from_chief(said.getvalue())))
            assert heard is not None
            state = heard
        if state.model:
            self.model.set_weights(state.model)
            for variable, value in zip(self._optimizer.variables, state.optimizer, strict=True):
                variable.assign(value)
        return state

    def _note(self, state: TrainingState) -> None:
        state.model = self.model.get_weights()
        state.optimizer = [variable.numpy() for variable in self._optimizer.variables]

    def _finished(self, state: TrainingState) -> bool:
        done, limits = len(state.curve), self._config.training
        if done >= limits.epochs:
            return True
        return not self._private and done > 0 and done - state.best_epoch.epoch >= limits.patience

    def _epoch(self, number: int, ranker: ModelRanker, on_batch: OnBatch) -> Epoch:
        started, cpu_started = time.perf_counter(), time.process_time()
        # Every worker masks by itself: what it masks is another part of each batch.
        masks = self._epoch_seed(number, self._distribution.workers.index)
        for i, dropout in enumerate(self._dropouts):
            dropout.seed_generator.state.assign([masks, i])
        training = self._config.training
        total = weight = 0.0
        for i, batch in enumerate(self._batches(number), start=1):
            step = int(self._optimizer.iterations) + 1
            self._optimizer.learning_rate.assign(rate(training, number, step))
            loss, of_batch = self._step(batch)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {number}, batch {i}: the loss is not finite; train with a lower learning_rate"
                )
            total, weight = total + loss, weight + of_batch
            on_batch(i, loss / of_batch if of_batch else 0.0)  # a Poisson sample may be empty

        def judged() -> Epoch:
            hr, ndcg = self._validation(ranker)
            return Epoch(
                epoch=number,
                loss=total / weight if weight else 0.0,
                validation_hr=hr,
                validation_ndcg=ndcg,
                seconds=time.perf_counter() - started,
                cpu_seconds=time.process_time() - cpu_started,
            )

        return self._as_the_chief(judged)

    def _as_the_chief(self, judged: Callable[[], Epoch]) -> Epoch:
        """What the chief judges, so that all workers stop at the same epoch and keep the same one."""
        workers = self._distribution.workers
        if workers.count == 1:
            return judged()
        said: dict[str, object] = {}
        if workers.chief:
            try:
                said = asdict(judged())
            except TrainingError as error:
                said = {"error": str(error)}
        heard = json.loads(self._distribution.from_chief(json.dumps(said).encode()))
        if "error" in heard:
            raise TrainingError(heard["error"])
        return Epoch(**heard)

    def _validation(self, ranker: ModelRanker) -> tuple[float, float]:
        """HR and NDCG at 10, or at the size of a smaller catalogue."""
        ranker.refresh()
        validation, _ = evaluate(
            ranker,
            self._prepared,
            self._split,
            "validation",
            cutoffs=(min(10, len(self._prepared.items)),),
            item_users=self._counts.item_users,
            users=self._counts.users,
            type_weights=self._config.behaviour.type_weights(),
        )
        by_name = {name.split("@")[0]: value for name, value in validation.metrics.items()}
        return by_name["hr"], by_name["ndcg"]

    def _epoch_seed(self, number: int, *more: int) -> int:
        of = [self._seed, number, *(each for each in more if each)]
        return int(np.random.SeedSequence(of).generate_state(1)[0] >> 1)

    def _batches(self, number: int) -> Iterable[dict[str, tf.Tensor]]:
        if self._private:
            return self._private.batches(number)
        windows: Iterable[dict[str, tf.Tensor]] = training_windows(
            self._prepared,
            self._split,
            self._facts.vocabulary,
            history=self._config.model.history,
            batch_size=self._config.training.batch_size,
            seed=self._epoch_seed(number),
        )
        return windows

    def _steps(self) -> Steps:
        loss = WindowLoss(self._config, self.model, self._facts.items.had, self._facts.item_users)
        return Steps(self.model, self._optimizer, loss, self._distribution, seed=self._seed)

    def _private_steps(self) -> PrivateSteps:
        windows = newest_windows(
            self._prepared,
            self._split,
            self._facts.vocabulary,
            history=self._config.model.history,
            seed=self._seed,
        )
        secret = self._distribution.from_chief(secrets.token_bytes(8))
        return PrivateSteps(
            self._config, self.model, self._optimizer, windows, self._distribution, secret=secret
        )
