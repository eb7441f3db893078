"""Private training: what a step computes, what it spends, and what stays out of it."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.baselines import count
from training.config import Config, load_config
from training.distribution import Distribution
from training.errors import TrainingError
from training.facts import gather_facts
from training.loss import WindowLoss
from training.privacy import PrivateSteps, clipped_sum, epsilon, noised, poisson_batches
from training.runs import Progress, Runs
from training.splits import LeaveOneOut
from training.train import Trainer
from training.windows import newest_windows


def config(noise=1.0, clip=1.0, **training):
    return Config.model_validate(
        {
            "data": {"name": "cycles"},
            "model": {"layers": 1, "width": 16, "heads": 2, "history": 8, "dropout": 0, "text": "none"},
            "ranker": {"train": False},
            "training": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 4, **training},
            "privacy": {"noise": noise, "clip": clip},
        }
    )


def counts(prepared):
    return count((LeaveOneOut().training_part(h) for h in prepared.histories()), len(prepared.items))


def facts(prepared, settings):
    return gather_facts(settings, prepared, counts(prepared), prepared.folder / "cache")


def newest(some_facts, prepared):
    return newest_windows(prepared, LeaveOneOut(), some_facts.vocabulary, history=8, seed=1)


def test_every_user_has_one_window_of_their_newest_events(cycles):
    windows = newest(facts(cycles, config()), cycles)
    parts = [LeaveOneOut().training_part(history) for history in cycles.histories()]
    parts = [part for part in parts if len(part) >= 2]
    assert len(windows["items"]) == len(parts)
    for row, part in zip(windows["items"], parts, strict=True):
        assert row[row > 0].tolist() == part.items[-9:].tolist()


def test_the_step_goes_along_the_sum_of_the_gradients_of_single_users_each_clipped(cycles):
    keras.utils.set_random_seed(3)
    settings = config(noise=1e-9, clip=0.05)
    some_facts = facts(cycles, settings)
    model = some_facts.build()
    windows = newest(some_facts, cycles)
    loss = WindowLoss(settings, model, some_facts.items.had, some_facts.item_users)

    def gradient_of(row):
        own = {name: tf.constant(values)[row][None] for name, values in windows.items()}
        with tf.GradientTape() as tape:
            total, weight = loss(own, tf.constant([0, 0]))
            mean = total / weight
        gradients = tape.gradient(mean, model.trainable_variables)
        return [tf.convert_to_tensor(each) for each in gradients], total, weight

    rows = [0, 7, 7, 31]
    naive = [np.zeros(variable.shape) for variable in model.trainable_variables]
    norms = []
    for row in rows:
        gradients = [each.numpy().astype(np.float64) for each in gradient_of(row)[0]]
        norms.append(math.sqrt(sum((each**2).sum() for each in gradients)))
    clip = float(np.median(norms))  # some are clipped, some are not
    for row, norm in zip(rows, norms, strict=True):
        for into, each in zip(naive, gradient_of(row)[0], strict=True):
            into += each.numpy() * min(1.0, clip / norm)
    *sums, total, weight = clipped_sum(gradient_of, tf.constant(rows), model.trainable_variables, clip)
    assert min(norms) < clip < max(norms)
    for got, expected in zip(sums, naive, strict=True):
        assert got.numpy() == pytest.approx(expected, abs=1e-5)
    assert float(total) == pytest.approx(sum(float(gradient_of(row)[1]) for row in rows), rel=1e-5)
    assert float(weight) == sum(float(gradient_of(row)[2]) for row in rows)


def test_the_longest_step_of_a_user_is_the_clip_over_the_batch(cycles):
    """With plain gradient descent the weights move by the gradient itself."""
    keras.utils.set_random_seed(3)
    settings = config(noise=1e-9, clip=1e-3)
    some_facts = facts(cycles, settings)
    model = some_facts.build()
    descent = keras.optimizers.SGD(1.0)
    descent.build(model.trainable_variables)
    windows = newest(some_facts, cycles)
    steps = PrivateSteps(settings, model, descent, windows, Distribution(), secret=bytes(8))
    before = [each.numpy() for each in model.trainable_variables]
    steps({name: tf.constant(values[:1]) for name, values in windows.items()})
    moved = math.sqrt(
        sum(
            ((new.numpy() - old) ** 2).sum()
            for new, old in zip(model.trainable_variables, before, strict=True)
        )
    )
    assert moved == pytest.approx(1e-3 / 16, rel=1e-3)


def test_a_batch_of_nobody_is_a_step_of_noise_of_the_stated_deviation(cycles):
    keras.utils.set_random_seed(3)
    settings = config(noise=2.0, clip=0.5)
    some_facts = facts(cycles, settings)
    model = some_facts.build()
    descent = keras.optimizers.SGD(1.0)
    descent.build(model.trainable_variables)
    windows = newest(some_facts, cycles)
    steps = PrivateSteps(settings, model, descent, windows, Distribution(), secret=bytes(8))
    before = [each.numpy() for each in model.trainable_variables]
    assert steps({name: tf.constant(values[:0]) for name, values in windows.items()}) == (0.0, 0.0)
    pairs = zip(model.trainable_variables, before, strict=True)
    noise = np.concatenate([(new.numpy() - old).ravel() for new, old in pairs])
    assert noise.std() == pytest.approx(2.0 * 0.5 / 16, rel=0.05)
    assert abs(noise.mean()) < 4 * noise.std() / math.sqrt(len(noise))


def test_noise_has_its_deviation_and_is_another_at_each_step_and_for_each_tensor():
    zeros = [tf.zeros((200, 50)), tf.zeros((200, 50))]
    first, second = noised(zeros, 3.0, tf.constant([5, 1], tf.int64))
    again, _ = noised(zeros, 3.0, tf.constant([5, 1], tf.int64))
    later, _ = noised(zeros, 3.0, tf.constant([5, 2], tf.int64))
    for each in (first, second, later):
        assert np.std(each) == pytest.approx(3.0, rel=0.03)
    assert (first == again).numpy().all()
    for other in (second, later):
        assert abs(np.corrcoef(np.ravel(first), np.ravel(other))[0, 1]) < 0.04


def test_users_are_in_a_batch_by_coins_of_their_own():
    windows = {"items": np.arange(300)[:, None]}
    batches = list(poisson_batches(windows, 0.1, 400, np.random.default_rng(4)))
    sizes = np.array([len(batch["items"]) for batch in batches])
    taken = np.bincount(np.concatenate([batch["items"].numpy().ravel() for batch in batches]), minlength=300)
    assert sizes.mean() == pytest.approx(30, rel=0.05)
    assert sizes.std() == pytest.approx(math.sqrt(300 * 0.1 * 0.9), rel=0.15)
    assert taken.std() == pytest.approx(math.sqrt(400 * 0.1 * 0.9), rel=0.15)


def renyi(noise, rate, order):
    """Of one step of the sampled Gaussian, at a whole order (Mironov, Talwar & Zhang 2019, section 3.3)."""
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    return np.logaddexp.reduce(terms) / (order - 1)


def test_epsilon_is_that_of_the_textbook_example():
    """MNIST of TensorFlow Privacy's tutorial: 60,000 examples, batches of 256, noise 1.1, 60 epochs. By the
    conversion of the 2016 paper it is the 3.0 that is quoted; that of Canonne et al. (2020) is tighter."""
    rate, steps, delta = 256 / 60_000, 60 * 60_000 // 256, 1e-5
    orders = range(2, 64)
    quoted = min(steps * renyi(1.1, rate, a) - math.log(delta) / (a - 1) for a in orders)
    tighter = min(
        steps * renyi(1.1, rate, a) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1) for a in orders
    )
    assert quoted == pytest.approx(3.0, abs=0.05)
    assert epsilon(1.1, rate, steps, delta) == pytest.approx(tighter, rel=0.01)
    assert epsilon(1.1, rate, steps, delta) <= quoted


def test_epsilon_grows_with_steps_and_with_the_rate_and_falls_with_noise():
    spent = [epsilon(1.0, 0.01, steps, 1e-5) for steps in (1, 10, 100, 1000)]
    assert spent == sorted(spent)
    assert len(set(spent)) == 4
    assert epsilon(1.0, 0.1, 100, 1e-5) > epsilon(1.0, 0.01, 100, 1e-5) > epsilon(2.0, 0.01, 100, 1e-5)


def test_a_model_is_not_told_which_items_somebody_took(make_prepared):
    log = {f"user-{i}": [(f"item-{(i + j) % 6}", 1000 + j) for j in range(6)] for i in range(8)}
    prepared = make_prepared(log, {f"item-{i}": [] for i in range(12)})
    private, other = facts(prepared, config()), facts(prepared, config(noise=0))
    assert private.items.had.tolist() == [False] + [True] * 12
    assert private.item_users.tolist() == [1] * 12
    assert private.item_times.tolist() == [0] * 13
    assert other.items.had.sum() == 6  # else the test could not fail


class Told(Progress):
    spent = None

    def private(self, epsilon, delta):
        self.spent = (epsilon, delta)


def test_a_private_run_learns_goes_through_all_epochs_and_says_what_it_has_spent(cycles, tmp_path: Path):
    settings = config(noise=0.05, epochs=4, patience=1, learning_rate=0.02)
    runs, told = Runs(settings, cycles, tmp_path / "runs", tmp_path / "cache"), Told()
    result = runs.train(LeaveOneOut(), counts(cycles), 1, told)
    assert len(result.curve) == result.best_epoch == 4
    assert result.curve[-1].loss < result.curve[0].loss
    users = len(newest(facts(cycles, settings), cycles)["items"])
    steps = 4 * math.ceil(users / 16)
    assert result.epsilon == pytest.approx(epsilon(0.05, 16 / users, steps, 1e-5))
    assert told.spent == (result.epsilon, 1e-5)
    assert runs.finished(LeaveOneOut(), 1) == result
    assert result.ranking is None


def test_a_delta_of_one_over_the_users_or_more_is_refused(cycles):
    def trainer(delta, noise=1.0):
        settings = config(noise=noise)
        privacy = settings.privacy.model_copy(update={"delta": delta})
        some_facts = facts(cycles, settings.model_copy(update={"privacy": privacy}))
        return Trainer(some_facts, cycles, LeaveOneOut(), counts(cycles), 1)

    users = len(newest(facts(cycles, config()), cycles)["items"])
    with pytest.raises(TrainingError, match=rf"privacy\.delta is 0\.5, .* 1 / {users} = {1 / users:.3g}; "):
        trainer(0.5)
    with pytest.raises(TrainingError, match=r"privacy\.delta"):
        trainer(1 / users)
    trainer(0.999 / users)
    assert trainer(0.5, noise=0).epsilon is None  # it is not private, and delta says nothing


def test_a_run_without_noise_has_spent_nothing_that_could_be_told(cycles):
    settings = config(noise=0)
    trainer = Trainer(facts(cycles, settings), cycles, LeaveOneOut(), counts(cycles), 1)
    assert trainer.epsilon is None


def test_noise_does_not_follow_from_the_seed(cycles, tmp_path: Path):
    settings = config(epochs=1)
    weights = []
    for i in range(2):
        trainer = Trainer(facts(cycles, settings), cycles, LeaveOneOut(), counts(cycles), 1)
        trainer.run(tmp_path / f"{i}.npz", lambda *_: None, lambda *_: None)
        weights.append(trainer.model.trainable_variables[0].numpy())
    assert not np.allclose(*weights, atol=1e-3)


def test_a_private_run_counts_the_steps_before_an_interruption(cycles, tmp_path: Path):
    settings, spent = config(epochs=2), []
    for epochs in (1, 2):
        shorter = settings.model_copy(
            update={"training": settings.training.model_copy(update={"epochs": epochs})}
        )
        trainer = Trainer(facts(cycles, shorter), cycles, LeaveOneOut(), counts(cycles), 1)
        trainer.run(tmp_path / "c.npz", lambda *_: None, lambda *_: None)
        spent.append(trainer.epsilon)
    assert spent[1] > spent[0] > 0
    whole = Trainer(facts(cycles, settings), cycles, LeaveOneOut(), counts(cycles), 1)
    whole.run(tmp_path / "whole.npz", lambda *_: None, lambda *_: None)
    assert whole.epsilon == spent[1]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "ranker.train must be false"),
        ("[ranker]\ntrain = false\n[model]\nuser_attributes = true", "model.user_attributes must be false"),
        ("[ranker]\ntrain = false\n[training]\nmixed_precision = true", "training.mixed_precision must be"),
    ],
)
def test_what_is_not_private_is_refused_with_noise(tmp_path: Path, rest, words):
    path = tmp_path / "c.toml"
    path.write_text(f'[data]\nname = "x"\n[privacy]\nnoise = 1.0\n{rest}\n')
    with pytest.raises(TrainingError, match="privacy is wrong: with noise, ") as told:
        load_config(path)
    assert words in str(told.value)
