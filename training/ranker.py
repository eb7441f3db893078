"""The ranking network: re-scores the candidates that the retrieval found, with more than one vector to go by.

For a candidate it sees user ⊙ item, the user's recent history as far as it concerns this candidate (target
attention: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018), how popular and
how old the item is, who the user is, and where and when the page is shown. Its answer starts out as the
retrieval's and is moved by what it learns; a sigmoid makes a probability of it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from training.model import BLOCKED, TIME_BUCKETS, time_bucket
from training.model_config import RankerConfig

NO_CANDIDATE = -1e9
"""The score of a slot with nothing in it: its share among the candidates is none."""
_SIDE = 8
"""Width of the embeddings of attributes, surface, hour, weekday and age."""
_DAY_S, _HOUR_S = 86_400, 3_600
_THURSDAY = 3
"""Unix time began on one; Monday is 0."""


class Candidates(NamedTuple):
    """B requests and C candidates of each."""

    user: tf.Tensor
    """float32 `[B, W]`, user vectors."""
    items: tf.Tensor
    """float32 `[B, C, W]`, vectors of the candidates."""
    scores: tf.Tensor
    """float32 `[B, C]`, the retrieval's, as `log_shares` among all that it found."""
    popularity: tf.Tensor
    """float32 `[B, C]`, logarithm of one plus the training users with the candidate."""
    item_times: tf.Tensor
    """int64 `[B, C]`, Unix seconds since when it is there; 0: not known."""
    recent: tf.Tensor
    """float32 `[B, R, W]`, vectors of the newest events, oldest first; zeros where there is none."""
    recent_times: tf.Tensor
    """int64 `[B, R]`, Unix seconds; 0 where there is none."""
    features: tf.Tensor
    """int32 `[B, F]`, rows of the users' attributes, 0: unknown."""
    surface: tf.Tensor
    """int32 `[B]`, row of the surface, 0: unknown."""
    time: tf.Tensor
    """int64 `[B]`, Unix seconds (UTC) of the request."""


class Ranker(keras.Model):
    """Candidates → logits."""

    def __init__(
        self, config: RankerConfig, width: int, attribute_rows: int, surface_rows: int, **kwargs: Any
    ) -> None:
        """`attribute_rows` and `surface_rows`: with the empty one, row 0."""
        super().__init__(**kwargs)
        self.config, self.width = config, width
        small = keras.initializers.RandomNormal(stddev=0.02)
        for name, rows in (
            ("attributes", attribute_rows),
            ("surfaces", surface_rows),
            ("hours", 24),
            ("weekdays", 7),
            ("ages", 1 + TIME_BUCKETS),  # the first is of items whose time is not known
        ):
            setattr(self, name, self.add_weight(name=name, shape=(rows, _SIDE), initializer=small))
        self.recency = self.add_weight(name="recency", shape=(TIME_BUCKETS,), initializer="zeros")
        self.sharpness = self.add_weight(name="sharpness", shape=(), initializer="ones")
        # One weight matrix in two parts: what is the same for all candidates of a request is multiplied once.
        self.of_candidate = keras.layers.Dense(config.hidden, name="of_candidate")
        self.of_request = keras.layers.Dense(config.hidden, use_bias=False, name="of_request")
        self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        self.answer = keras.layers.Dense(1, kernel_initializer="zeros", name="answer")
        self.trust = self.add_weight(name="trust", shape=(), initializer="ones")

    def call(self, candidates: Candidates, training: bool = False) -> tf.Tensor:
        """float32 `[B, C]`: logits; before any training, the retrieval's scores as they are."""
        c = candidates
        met = self._met(c)  # (B, C, W)
        ages = tf.where(c.item_times > 0, 1 + time_bucket(c.time[:, None] - c.item_times), 0)
        of_candidate = tf.concat(
            [
                c.user[:, None] * c.items,
                met * c.items,
                tf.reduce_sum(met * c.items, axis=-1, keepdims=True),
                c.popularity[..., None],
                tf.gather(self.ages, ages),
            ],
            axis=-1,
        )
        known = tf.cast(c.features > 0, tf.float32)[..., None]
        hour = tf.cast(tf.math.floormod(c.time, _DAY_S) // _HOUR_S, tf.int32)
        weekday = tf.cast(tf.math.floormod(c.time // _DAY_S + _THURSDAY, 7), tf.int32)
        of_request = tf.concat(
            [
                tf.reduce_sum(tf.gather(self.attributes, c.features) * known, axis=1),
                tf.gather(self.surfaces, c.surface),
                tf.gather(self.hours, hour),
                tf.gather(self.weekdays, weekday),
            ],
            axis=-1,
        )
        hidden = tf.nn.relu(self.of_candidate(of_candidate) + self.of_request(of_request)[:, None])
        moved = self.answer(self.dropout(hidden, training=training))[..., 0]
        return self.trust * c.scores + moved

    def _met(self, c: Candidates) -> tf.Tensor:
        """The recent history as far as it is like each candidate, float32 `[B, C, W]`."""
        logits = tf.matmul(c.items, c.recent, transpose_b=True) * (self.sharpness * self.width**-0.5)
        ages = time_bucket(c.time[:, None] - c.recent_times)
        bias = tf.where(c.recent_times > 0, tf.gather(self.recency, ages), BLOCKED)  # (B, R)
        return tf.matmul(tf.nn.softmax(logits + bias[:, None]), c.recent)


def log_shares(scores: tf.Tensor) -> tf.Tensor:
    """The logarithm of each candidate's softmax among all of its request, float32 `[B, C]`: a dot product by
    itself says little, as its level differs from user to user."""
    return scores - tf.reduce_logsumexp(scores, axis=1, keepdims=True)


def build_ranker(config: RankerConfig, width: int, attribute_rows: int, surface_rows: int) -> Ranker:
    """A network with its variables made (weights depend on `keras.utils.set_random_seed`)."""
    ranker = Ranker(config, width, attribute_rows, surface_rows, name="ranker")
    nothing, none = tf.zeros((1, 1)), tf.zeros((1, 1), tf.int64)
    ranker(
        Candidates(
            user=tf.zeros((1, width)),
            items=tf.zeros((1, 1, width)),
            scores=nothing,
            popularity=nothing,
            item_times=none,
            recent=tf.zeros((1, 1, width)),
            recent_times=none,
            features=tf.zeros((1, 1), tf.int32),
            surface=tf.zeros((1,), tf.int32),
            time=none[0],
        )
    )
    return ranker


def sampling_shift(candidates: int, negatives: int) -> float:
    """What a logit that was learned from some of the negatives is too high by: training saw `negatives` of
    the `candidates - 1`, each as likely as the other (He et al., "Practical Lessons from Predicting Clicks on
    Ads at Facebook", ADKDD 2014, section 6.3)."""
    return math.log(max(1.0, (candidates - 1) / negatives))
