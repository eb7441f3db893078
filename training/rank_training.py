"""Training the ranking network on what the retrieval finds, and answering with both."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.calibration import Calibration, calibrate
from training.cold_items import ItemVectors
from training.dataset import Prepared
from training.facts import Facts
from training.model import HistoryEncoder
from training.rank_examples import Examples, candidates_of, gather_examples
from training.ranker import NO_CANDIDATE, Candidates, Ranker, log_shares, sampling_shift
from training.splits import Case, Split
from training.train import ModelRanker

_CASES_AT_ONCE = 256
_RERANKED = np.float32(1e6)
"""Above all scores of the retrieval: what was re-scored comes before what was not. Float32 has all whole
numbers up to 16 times as far, but nothing between them that would keep logits apart."""


def train_ranker(
    facts: Facts, prepared: Prepared, split: Split, model: HistoryEncoder, items: ItemVectors, *, seed: int
) -> Ranker | None:
    """A ranking network for a trained retrieval; None if the retrieval finds nothing to learn from.

    Binary cross-entropy: was this candidate the one that was taken? The retrieval stays as it is.
    """
    examples = gather_examples(facts, prepared, split, model, items, seed=seed)
    if examples is None:
        return None
    keras.utils.set_random_seed(seed)
    ranker = facts.build_ranker()
    config = facts.config.ranker
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    optimizer.build(ranker.trainable_variables)
    table = tf.constant(items.vectors)
    popularity, item_times = tf.constant(facts.popularity), tf.constant(facts.item_times)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        candidates = _candidates(batch, table, popularity, item_times)
        with tf.GradientTape() as tape:
            logits = ranker(candidates, training=True)
            labels = tf.one_hot(tf.zeros(tf.shape(logits)[0], tf.int32), tf.shape(logits)[1])
            losses = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=1)
            loss = tf.reduce_sum(losses * batch["weight"]) / tf.reduce_sum(batch["weight"])
        variables = ranker.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    arrays = _arrays(examples)
    for epoch in range(config.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(examples))
        for start in range(0, len(order), config.batch_size):
            rows = order[start : start + config.batch_size]
            step({name: tf.constant(array[rows]) for name, array in arrays.items()})
    return ranker


class RankedRetrieval:
    """Retrieval and ranking together, as `evaluate` wants them."""

    name = "transformer"

    def __init__(self, retrieval: ModelRanker, ranker: Ranker, facts: Facts) -> None:
        self._retrieval, self._ranker, self._facts = retrieval, ranker, facts
        config = facts.config.ranker
        self._shift = sampling_shift(min(config.candidates, len(facts.popularity) - 1), config.negatives)
        self._logits = tf.function(ranker, reduce_retracing=True, autograph=False)

    def scores(self, cases: Sequence[Case]) -> NDArray[np.float32]:
        """float32 `[B, N]`: the candidates in the order of the ranking network, above all others by the
        retrieval."""
        scores = self._retrieval.scores(cases)
        found, logits, _ = self.candidates(cases, scores)
        order = np.argsort(-logits, axis=1, kind="stable")
        places = np.arange(found.shape[1], 0, -1, dtype=np.float32)[None]
        np.put_along_axis(scores, np.take_along_axis(found, order, axis=1) - 1, _RERANKED + places, axis=1)
        return scores

    def candidates(
        self, cases: Sequence[Case], scores: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """The candidates of each request, int32 `[B, C]` from 1, their logits float32 `[B, C]`, and bool
        `[B, C]` whether they are any: others fill up where fewer are left.

        The sigmoid of a logit is the chance that this candidate is the one that is taken, if one of them is.
        """
        scores = self._retrieval.scores(cases) if scores is None else scores
        count = min(self._facts.config.ranker.candidates, scores.shape[1])
        found, real = candidates_of(scores, cases, self._facts.published[1:], count)
        among = np.take_along_axis(scores, found - 1, axis=1)
        among = np.where(real, among, NO_CANDIDATE).astype(np.float32)
        return found, self.logits(cases, found, among), real

    def logits(
        self, cases: Sequence[Case], found: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The logits of given candidates, float32 `[B, C]`.

        Args:
            found: int32 `[B, C]`, catalogue indices from 1.
            scores: float32 `[B, C]`, the retrieval's; `NO_CANDIDATE` where there is none.
        """
        facts, config = self._facts, self._facts.config
        histories = facts.histories(cases)
        recent = min(config.ranker.recent, config.model.history)
        batch = {
            "user": self._retrieval.vectors(cases),
            "items": tf.constant(found),
            "scores": log_shares(tf.constant(scores)),
            "recent": histories.items[:, -recent:],
            "recent_times": histories.times[:, -recent:],
            "features": histories.features,
            "surface": tf.constant(facts.surface_rows(np.array([case.surface for case in cases], np.int64))),
            "time": tf.constant([case.time for case in cases], tf.int64),
        }
        tables = (self._retrieval.table, tf.constant(facts.popularity), tf.constant(facts.item_times))
        logits: NDArray[np.float32] = self._logits(_candidates(batch, *tables)).numpy()
        return logits - np.float32(self._shift)


def calibration_of(ranked: RankedRetrieval, cases: Sequence[Case]) -> Calibration | None:
    """How right the probabilities of the candidates are: of the requests whose target is among them, as that
    is what they are predicted for. None if there is no such request."""
    probabilities, labels = [], []
    for start in range(0, len(cases), _CASES_AT_ONCE):
        some = cases[start : start + _CASES_AT_ONCE]
        found, logits, real = ranked.candidates(some)
        taken = real & np.stack([np.isin(row, case.targets) for row, case in zip(found, some, strict=True)])
        judged = taken.any(axis=1, keepdims=True) & real
        probabilities.append(1.0 / (1.0 + np.exp(-logits[judged].astype(np.float64))))
        labels.append(taken[judged])
    right = np.concatenate(labels)
    if not right.any() or right.all():
        return None
    return calibrate(np.concatenate(probabilities), right)


def _arrays(examples: Examples) -> dict[str, NDArray[np.generic]]:
    names = ("user", "items", "scores", "recent", "recent_times", "features", "surface", "time", "weight")
    return {name: getattr(examples, name) for name in names}


def _candidates(
    batch: dict[str, tf.Tensor], table: tf.Tensor, popularity: tf.Tensor, item_times: tf.Tensor
) -> Candidates:
    items = batch["items"]
    recent = tf.gather(table, batch["recent"]) * tf.cast(batch["recent"] > 0, tf.float32)[..., None]
    return Candidates(
        user=batch["user"],
        items=tf.gather(table, items),
        scores=batch["scores"],
        popularity=tf.gather(popularity, items),
        item_times=tf.gather(item_times, items),
        recent=recent,
        recent_times=tf.where(batch["recent"] > 0, batch["recent_times"], 0),
        features=batch["features"],
        surface=batch["surface"],
        time=batch["time"],
    )
