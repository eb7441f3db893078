from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from training.baselines import count
from training.checkpoint import TrainingState, load_state
from training.config import Config
from training.errors import TrainingError
from training.facts import gather_facts
from training.runs import Progress, Runs
from training.splits import Case, LeaveOneOut
from training.train import ModelRanker, Trainer


def config(**training):
    model = {"layers": 1, "width": 16, "heads": 2, "history": 8, "dropout": 0.1, "text": "none"}
    return Config.model_validate(
        {
            "data": {"name": "cycles"},
            "model": model,
            "ranker": {"train": False},
            "training": {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 4, **training},
        }
    )


def counts(prepared):
    return count((LeaveOneOut().training_part(h) for h in prepared.histories()), len(prepared.items))


def facts(prepared, **training):
    return gather_facts(config(**training), prepared, counts(prepared), prepared.folder / "cache")


def trainer(prepared, seed=1, **training):
    return Trainer(facts(prepared, **training), prepared, LeaveOneOut(), counts(prepared), seed)


def runs(folder: Path, prepared, **training):
    return Runs(config(**training), prepared, folder / "runs", folder / "cache")


def case(history):
    return Case(history, np.array([1], np.int32), 0)


def figures(state):
    return [(e.epoch, e.loss, e.validation_hr, e.validation_ndcg) for e in state.curve]


def nothing(*_):
    pass


class Interrupted(Progress):
    """Ctrl-C in the middle of the epoch after `epochs` ones."""

    def __init__(self, epochs):
        self.epochs, self.done = epochs, 0

    def epoch(self, epoch, best):
        self.done = epoch.epoch

    def batch(self, number, loss):
        if self.done == self.epochs and number == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("sampled", [False, True])
def test_a_certain_order_is_learnt(cycles, tmp_path: Path, sampled):
    limits = {"sampled_softmax_threshold": 10, "sampled_negatives": 32} if sampled else {}
    training = trainer(cycles, epochs=15, patience=15, **limits)
    state = training.run(tmp_path / "c.npz", nothing, nothing)
    assert state.curve[0].loss > 2 * state.curve[-1].loss
    assert state.best_epoch.validation_ndcg > 0.9


def test_the_model_is_left_with_the_weights_of_the_best_epoch(cycles, tmp_path: Path):
    training = trainer(cycles, epochs=3)
    state = training.run(tmp_path / "c.npz", nothing, nothing)
    for weights, best in zip(training.model.trainable_variables, state.best, strict=True):
        assert (weights.numpy() == best).all()


def test_training_stops_when_validation_has_not_been_better_for_the_patience(cycles, tmp_path: Path):
    # A step this small changes no ranking, so no epoch is better than the first.
    state = trainer(cycles, epochs=9, patience=2, learning_rate=1e-12).run(
        tmp_path / "c.npz", nothing, nothing
    )
    assert len(state.curve) == 3
    assert state.best_epoch.epoch == 1


def test_a_training_that_diverges_is_said_and_leaves_the_last_checkpoint(cycles, tmp_path: Path):
    checkpoint = tmp_path / "c.npz"
    trainer(cycles, epochs=1).run(checkpoint, nothing, nothing)
    for _ in range(2):  # going on from there ends the same way
        with pytest.raises(TrainingError, match=r"epoch 2, .* lower learning_rate"):
            trainer(cycles, learning_rate=1e30).run(checkpoint, nothing, nothing)
        assert len(load_state(checkpoint).curve) == 1


def test_scores_that_are_not_finite_are_said(cycles):
    training = trainer(cycles)
    training.model.set_weights([np.full_like(weights, np.nan) for weights in training.model.get_weights()])
    with pytest.raises(TrainingError, match="not finite; train with a lower learning_rate"):
        ModelRanker(training.model, facts(cycles)).scores([case(user) for user in cycles.histories()])


def test_a_seed_decides_the_run_and_another_seed_gives_another(cycles, tmp_path: Path):
    first, again, other = (
        figures(trainer(cycles, seed, epochs=2).run(tmp_path / f"{i}.npz", nothing, nothing))
        for i, seed in enumerate((1, 1, 2))
    )
    assert np.array(first) == pytest.approx(np.array(again), rel=1e-3)
    assert np.array(first) != pytest.approx(np.array(other), rel=1e-3)


def test_an_interrupted_run_gives_the_curve_of_an_uninterrupted_one(cycles, tmp_path: Path):
    whole = trainer(cycles).run(tmp_path / "whole.npz", nothing, nothing)
    checkpoint = tmp_path / "parts.npz"
    stop = Interrupted(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        trainer(cycles).run(checkpoint, stop.epoch, stop.batch)
    assert len(load_state(checkpoint).curve) == 2
    begun = []
    resumed = trainer(cycles).run(checkpoint, lambda epoch, best: begun.append(epoch.epoch), nothing)
    assert begun == [3, 4]
    assert np.array(figures(resumed)) == pytest.approx(np.array(figures(whole)), rel=1e-3)
    for one, other in zip(resumed.model, whole.model, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_checkpoint_that_cannot_be_read_is_as_none(tmp_path: Path):
    assert load_state(tmp_path / "none.npz") is None
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04half")
    assert load_state(tmp_path / "half.npz") is None
    TrainingState().save(tmp_path / "empty.npz")
    assert load_state(tmp_path / "empty.npz").curve == []


def test_a_finished_run_is_found_again_and_one_of_other_settings_is_not(cycles, tmp_path: Path):
    these = runs(tmp_path, cycles, epochs=1)
    assert these.finished(LeaveOneOut(), 1) is None
    result = these.train(LeaveOneOut(), counts(cycles), 1, Progress())
    assert these.finished(LeaveOneOut(), 1) == result
    assert these.all_finished(LeaveOneOut()) == [result]
    assert these.finished(LeaveOneOut(), 2) is None
    judged = these.judged(LeaveOneOut(), 1)
    assert len(judged.users) == result.test.users == 60
    assert judged.values["ndcg@10"].mean() == pytest.approx(result.test.metrics["ndcg@10"])
    assert not (these.run_folder(LeaveOneOut(), 1) / "checkpoint.npz").exists()
    for other in (
        runs(tmp_path, cycles, epochs=2),
        runs(tmp_path, dataclasses.replace(cycles, fingerprint="0" * 64), epochs=1),
    ):
        assert other.finished(LeaveOneOut(), 1) is None
    (these.run_folder(LeaveOneOut(), 1) / "judged.npz").unlink()
    assert these.finished(LeaveOneOut(), 1) is None


def test_a_run_does_not_go_on_from_the_checkpoint_of_other_settings(cycles, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        runs(tmp_path, cycles).train(LeaveOneOut(), counts(cycles), 1, Interrupted(epochs=1))
    result = runs(tmp_path, cycles, epochs=1, learning_rate=1e-12).train(
        LeaveOneOut(), counts(cycles), 1, Progress()
    )
    assert len(result.curve) == 1
    assert result.curve[0].loss == pytest.approx(np.log(24), rel=0.05)


def test_a_model_ranks_from_the_newest_events_of_a_history(cycles, tmp_path: Path):
    training = trainer(cycles)
    user = max(cycles.histories(), key=len)
    ranker = ModelRanker(training.model, facts(cycles))
    newest = user.where(np.arange(len(user)) >= len(user) - 8)
    assert ranker.scores([case(user)]) == pytest.approx(ranker.scores([case(newest)]), abs=1e-6)
