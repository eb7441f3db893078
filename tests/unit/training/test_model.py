from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.checkpoint import load_weights, save_weights
from training.config import ModelConfig, load_config
from training.loss import full_softmax, sampled_softmax
from training.model import build

SMALL = ModelConfig(layers=2, width=16, heads=2, history=8)


@pytest.fixture
def model():
    keras.utils.set_random_seed(3)
    return build(SMALL, 20)


def test_a_position_does_not_see_what_comes_after_it(model):
    one = np.array([[0, 0, 3, 4, 5, 6, 7, 8]], np.int32)
    two = np.array([[0, 0, 3, 4, 5, 9, 1, 2]], np.int32)
    a, b = model(one).numpy(), model(two).numpy()
    assert a[:, 2:5] == pytest.approx(b[:, 2:5], abs=1e-6)
    assert not np.allclose(a[:, 5:], b[:, 5:], atol=1e-3)


def test_padding_is_not_seen_whatever_its_embedding(model):
    history = np.array([[0, 0, 0, 4, 5, 6, 7, 8]], np.int32)
    before = model(history, newest_only=True).numpy()
    items = model.items.numpy()
    items[0] = 100.0
    model.items.assign(items)
    assert model(history, newest_only=True).numpy() == pytest.approx(before, abs=1e-6)


def test_the_newest_position_alone_is_the_last_of_all_positions(model):
    history = np.random.default_rng(0).integers(1, 21, (5, 8)).astype(np.int32)
    history[0, :6] = 0
    assert model(history, newest_only=True).numpy() == pytest.approx(model(history).numpy()[:, -1], abs=1e-5)


def test_an_empty_history_gets_a_finite_vector_and_the_same_for_everybody(model):
    vectors = model(np.zeros((2, 8), np.int32), newest_only=True).numpy()
    assert np.isfinite(vectors).all()
    assert (vectors[0] == vectors[1]).all()


def test_dropout_acts_in_training_only(model):
    history = np.full((1, 8), 3, np.int32)
    assert (model(history).numpy() == model(history).numpy()).all()
    assert not np.allclose(model(history, training=True).numpy(), model(history, training=True).numpy())


def test_weights_survive_the_disk_into_another_model(model, tmp_path: Path):
    save_weights(tmp_path / "weights.npz", model)
    other = build(SMALL, 20)
    history = np.array([[0, 0, 3, 4, 5, 6, 7, 8]], np.int32)
    assert not np.allclose(other(history).numpy(), model(history).numpy())
    load_weights(tmp_path / "weights.npz", other)
    assert (other(history).numpy() == model(history).numpy()).all()


def test_the_large_configuration_builds():
    config = load_config(Path("training/configs/movielens-large.toml")).model
    assert (config.layers, config.width, config.history) == (8, 256, 200)
    model = build(config, 50)
    vector = model(np.ones((1, 200), np.int32), newest_only=True).numpy()
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
    estimates = [
        np.exp(sampled_softmax(vectors, targets, items, tf.constant(shares, tf.float32), 64, seed).numpy())
        for seed in tf.constant([[i, 9] for i in range(400)], tf.int32)
    ]
    # exp(loss) is the sum of exponentials over the target's own: unbiased, which the loss itself is not.
    assert np.mean(estimates, axis=0) == pytest.approx(np.exp(full), rel=0.1)


def test_sampled_softmax_has_no_negative_that_is_the_target():
    items = tf.constant([[0.0], [1.0], [1.0]])
    loss = sampled_softmax(
        tf.ones((4, 1)),
        tf.constant([1, 1, 1, 1]),
        items,
        tf.constant([0.0, 1.0, 0.0]),
        1,
        tf.constant([1, 2]),
    ).numpy()
    full = full_softmax(tf.ones((1, 1)), tf.constant([1]), items).numpy()
    assert (loss >= 0).all()
    assert (loss < full + 5).all()
