"""Training in float16: slower on a CPU, and the same arithmetic as on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.baselines import count
from training.checkpoint import load_weights, save_weights
from training.config import Config
from training.facts import gather_facts
from training.splits import LeaveOneOut
from training.train import ModelRanker, Trainer


def settings(mixed_precision):
    training = {"epochs": 6, "batch_size": 16, "learning_rate": 0.02, "warmup_steps": 4}
    return Config.model_validate(
        {
            "data": {"name": "cycles"},
            "model": {"layers": 1, "width": 16, "heads": 2, "history": 8, "dropout": 0.1, "text": "none"},
            "training": {**training, "mixed_precision": mixed_precision},
        }
    )


def counts(prepared):
    return count((LeaveOneOut().training_part(h) for h in prepared.histories()), len(prepared.items))


def facts(prepared, mixed_precision):
    return gather_facts(settings(mixed_precision), prepared, counts(prepared), prepared.folder / "cache")


@pytest.fixture
def trained(cycles, tmp_path: Path):
    trainer = Trainer(facts(cycles, True), cycles, LeaveOneOut(), counts(cycles), 1)
    batches = []
    state = trainer.run(tmp_path / "c.npz", lambda *_: None, lambda number, loss: batches.append(number))
    return trainer, state, len(batches)


def test_a_model_learns_in_mixed_precision_and_its_weights_stay_float32(cycles, trained, tmp_path: Path):
    trainer, state, _ = trained
    assert trainer.model.blocks[0].expand.compute_dtype == "float16"  # else nothing is tried here
    assert state.curve[-1].loss < 0.7 * state.curve[0].loss
    assert {weight.dtype for weight in trainer.model.trainable_variables} == {"float32"}
    cases = [case for user in cycles.histories() if (case := LeaveOneOut().case(user, "test")) is not None]
    scores = ModelRanker(trainer.model, facts(cycles, True)).scores(cases)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()

    save_weights(tmp_path / "weights.npz", trainer.model)
    whole = facts(cycles, False)
    model = whole.build()
    assert model.blocks[0].expand.compute_dtype == "float32"
    load_weights(tmp_path / "weights.npz", model)
    assert ModelRanker(model, whole).scores(cases) == pytest.approx(scores, abs=0.05)


def test_every_step_is_counted_for_the_learning_rate(trained):
    """The optimizer that scales the loss is another than the one that takes the steps."""
    trainer, _, steps = trained
    assert int(trainer._optimizer.iterations) == steps
    assert int(trainer._optimizer.inner_optimizer.iterations) == steps
    assert float(trainer._optimizer.inner_optimizer.learning_rate) < 0.02
