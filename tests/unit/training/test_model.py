from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from features.schema import EventType
from tests.unit.training.models import facts, histories
from training.checkpoint import load_weights, save_weights
from training.config import load_config
from training.loss import draw_items, full_softmax, sampled_softmax
from training.model import time_bucket
from training.user_features import UserVocabulary

HISTORY = [[0, 0, 3, 4, 5, 6, 7, 8]]


def small(**tables):
    keras.utils.set_random_seed(3)
    return facts(20, **tables).build()


@pytest.fixture
def model():
    return small()


def vectors(model, some, newest_only=False, training=False):
    return model(some, model.table(), newest_only=newest_only, training=training).numpy()


def test_a_position_does_not_see_what_comes_after_it(model):
    a, b = (vectors(model, histories([[0, 0, 3, 4, 5, *rest]])) for rest in ((6, 7, 8), (9, 1, 2)))
    assert a[:, 2:5] == pytest.approx(b[:, 2:5], abs=1e-6)
    assert not np.allclose(a[:, 5:], b[:, 5:], atol=1e-3)


def test_padding_is_not_seen_whatever_its_vector_and_its_time(model):
    table = model.table().numpy()
    before = model(histories(HISTORY), tf.constant(table), newest_only=True).numpy()
    table[0] = 100.0
    times = np.arange(8)[None] + 1_000_000
    times[0, :2] = 5
    after = model(histories(HISTORY, times=times), tf.constant(table), newest_only=True).numpy()
    assert after == pytest.approx(before, abs=1e-6)


def test_the_newest_position_alone_is_the_last_of_all_positions(model):
    items = np.random.default_rng(0).integers(1, 21, (5, 8)).astype(np.int32)
    items[0, :6] = 0
    some = histories(items)
    assert vectors(model, some, newest_only=True) == pytest.approx(vectors(model, some)[:, -1], abs=1e-5)


def test_an_empty_history_gets_a_finite_vector_and_the_same_for_everybody(model):
    got = vectors(model, histories(np.zeros((2, 8))), newest_only=True)
    assert np.isfinite(got).all()
    assert (got[0] == got[1]).all()


def test_dropout_acts_in_training_only(model):
    some = histories(np.full((1, 8), 3))
    assert (vectors(model, some) == vectors(model, some)).all()
    assert not np.allclose(vectors(model, some, training=True), vectors(model, some, training=True))


def with_time_biases(model):
    for block in model.blocks:
        block.time_bias.assign(np.random.default_rng(4).normal(size=block.time_bias.shape))
    return model


def test_how_long_ago_an_event_was_counts_unless_times_are_off(model):
    hour_ago, year_ago = (histories(HISTORY, request_time=1_000_007 + s) for s in (3_600, 31_536_000))
    with_time_biases(model)
    assert not np.allclose(vectors(model, hour_ago, True), vectors(model, year_ago, True), atol=1e-3)
    blind = small(model={"times": False})
    assert (vectors(blind, hour_ago, True) == vectors(blind, year_ago, True)).all()


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(-5, 0), (0, 0), (1, 1), (2, 1), (3, 2), (7, 3), (2**62, 31)]
)
def test_times_are_told_apart_by_doublings(seconds, bucket):
    assert int(time_bucket(tf.constant(seconds, tf.int64))) == bucket


def test_the_gateways_rule_for_a_vectors_age_is_that_of_the_buckets():
    seconds = np.unique(np.geomspace(1, 2**30, 4000).astype(np.int64))
    ours = time_bucket(tf.constant(seconds)).numpy()
    lengths = np.array([(int(s) + 1).bit_length() - 1 for s in seconds])
    # float32 rounds the last second before a doubling up.
    assert (ours != lengths).mean() < 0.01


def test_an_event_that_counts_more_moves_the_vector_more():
    plain, weighted = small(), small(behaviour={"event_weights": {"PURCHASE": 50}})
    types = np.full((1, 8), EventType.VIEW)
    types[0, 3] = EventType.PURCHASE
    some = histories(HISTORY, types=types)
    without = histories([[0, 0, 0, 3, 5, 6, 7, 8]], types=types * [0, 0, 0, 1, 1, 1, 1, 1])
    moved = {
        model: np.linalg.norm(vectors(model, some, True) - vectors(model, without, True))
        for model in (plain, weighted)
    }
    assert moved[weighted] > moved[plain]
    alike = histories(HISTORY, types=np.full((1, 8), EventType.VIEW))
    assert vectors(weighted, alike, True) == pytest.approx(vectors(plain, alike, True), abs=1e-5)


def test_interest_fades_with_the_half_life():
    fading = small(behaviour={"interest_half_life_days": 1})
    day = 86_400
    old = np.array([[0, 0, 0, 0, 0, 0, 10**9, 10**9 + 40 * day]])
    first, second = (
        vectors(fading, histories([[0, 0, 0, 0, 0, 0, item, 8]], times=old), True) for item in (3, 4)
    )
    recent = old * [0, 0, 0, 0, 0, 0, 1, 0] + [[0, 0, 0, 0, 0, 0, 0, 10**9 + 60]]
    near, near_other = (
        vectors(fading, histories([[0, 0, 0, 0, 0, 0, item, 8]], times=recent), True) for item in (3, 4)
    )
    assert first == pytest.approx(second, abs=1e-5)  # what was 40 half-lives ago no longer matters
    assert not np.allclose(near, near_other, atol=1e-3)


def test_attributes_move_the_vector_of_a_user_without_a_history():
    vocabulary = UserVocabulary(np.array([5, 9]), np.array([1, 2], np.int32), 1)
    told = dataclasses.replace(facts(20), vocabulary=vocabulary, attributes=("country",)).build()
    told.attributes.assign(np.random.default_rng(1).normal(size=told.attributes.shape))
    nobody = np.zeros((3, 8))
    got = vectors(told, histories(nobody, features=[[0], [1], [2]]), True)
    assert not np.allclose(got[1], got[2], atol=1e-3)
    told.attributes.assign(np.concatenate([np.full((1, 16), 99.0), told.attributes.numpy()[1:]]))
    again = vectors(told, histories(nobody, features=[[0], [1], [2]]), True)
    assert again == pytest.approx(got, abs=1e-6)  # row 0 is nothing known, whatever stands in it


def test_weights_survive_the_disk_into_another_model(model, tmp_path: Path):
    save_weights(tmp_path / "weights.npz", model)
    keras.utils.set_random_seed(4)
    other, some = facts(20).build(), histories(HISTORY)
    assert not np.allclose(vectors(other, some), vectors(model, some))
    load_weights(tmp_path / "weights.npz", other)
    assert (vectors(other, some) == vectors(model, some)).all()


def test_the_large_configuration_builds():
    config = load_config(Path("training/configs/movielens-large.toml")).model
    assert (config.layers, config.width, config.history) == (8, 256, 200)
    model = facts(50, model=config.model_dump()).build()
    vector = vectors(model, histories(np.ones((1, 200))), newest_only=True)
    assert vector.shape == (1, 256)
    assert np.isfinite(vector).all()


def test_full_softmax_and_its_gradient_are_those_of_tensorflow():
    rng = np.random.default_rng(1)
    items, vectors = (tf.constant(rng.normal(size=(rows, 8)) * 3, tf.float32) for rows in (41, 30))
    targets = tf.constant(rng.integers(1, 41, 30), tf.int32)
    weights = tf.constant(rng.normal(size=30), tf.float32)

    def plain(vectors, targets, items):
        logits = tf.matmul(vectors, items[1:], transpose_b=True)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets - 1, logits)

    got = []
    for loss in (full_softmax, plain):
        with tf.GradientTape() as tape:
            tape.watch([vectors, items])
            losses = loss(vectors, targets, items)
            weighted = tf.reduce_sum(losses * weights)
        got.append([losses.numpy(), *(g.numpy() for g in tape.gradient(weighted, [vectors, items]))])
    for ours, theirs in zip(*got, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_sampled_softmax_estimates_the_full_one_with_any_popularity():
    rng = np.random.default_rng(1)
    items = tf.constant(rng.normal(size=(41, 8)) * 0.5, tf.float32)
    vectors = tf.constant(rng.normal(size=(200, 8)), tf.float32)
    shares = np.concatenate([[0], rng.dirichlet(np.full(40, 0.3))])
    targets = tf.constant(rng.choice(41, 200, p=shares), tf.int32)
    # The shares that the batch really has, as the draws come from the batch.
    shares = np.bincount(targets.numpy(), minlength=41) / 200
    full = full_softmax(vectors, targets, items).numpy()
    had, shares = tf.range(1, 41), tf.constant(shares, tf.float32)
    draws = [draw_items(targets, had, shares, 64, tf.constant([i, 9])) for i in range(400)]
    estimates = [np.exp(sampled_softmax(vectors, targets, items, *draw).numpy()) for draw in draws]
    # exp(loss) is the sum of exponentials over the target's own: unbiased, which the loss itself is not.
    assert np.mean(estimates, axis=0) == pytest.approx(np.exp(full), rel=0.1)


def test_sampled_softmax_has_no_negative_that_is_the_target():
    items, targets, vectors = tf.constant([[0.0], [1.0], [1.0]]), tf.constant([1, 1, 1, 1]), tf.ones((4, 1))
    loss = sampled_softmax(vectors, targets, items, tf.constant([1, 1]), tf.constant([1.0, 1.0])).numpy()
    assert loss == pytest.approx(0.0, abs=1e-6)


def test_an_item_that_nobody_took_is_never_drawn():
    shares = tf.constant([0.0, 1.0, 0.0, 0.0])
    drawn = [
        draw_items(tf.constant([1]), tf.constant([1, 3]), shares, 8, tf.constant([i, 0]))[0]
        for i in range(20)
    ]
    assert set(np.concatenate(drawn).tolist()) == {1, 3}
