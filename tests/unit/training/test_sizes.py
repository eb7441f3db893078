"""The sizes that a model can be told to have."""

from __future__ import annotations

import math

import keras
import pytest

from training.baselines import count
from training.config import Config
from training.distribution import Distribution
from training.facts import gather_facts
from training.loss import WindowLoss
from training.model_config import SIZES, ModelConfig
from training.splits import LeaveOneOut
from training.steps import Steps, make_optimizer
from training.windows import training_windows


@pytest.mark.parametrize("size", SIZES)
def test_a_model_of_each_size_is_built_and_takes_a_step(cycles, size):
    settings = Config.model_validate({"data": {"name": "x"}, "model": {"size": size, "text": "none"}})
    counts = count((LeaveOneOut().training_part(h) for h in cycles.histories()), len(cycles.items))
    facts = gather_facts(settings, cycles, counts, cycles.folder / "cache")
    keras.utils.set_random_seed(1)
    model = facts.build()
    assert len(model.blocks) == SIZES[size]["layers"]
    assert model.positions.shape == (SIZES[size]["history"], SIZES[size]["width"])
    optimizer = make_optimizer(settings.training, model)
    loss = WindowLoss(settings, model, facts.items.had, facts.item_users)
    windows = training_windows(
        cycles,
        LeaveOneOut(),
        facts.vocabulary,
        history=settings.model.history,
        batch_size=2,
        seed=1,
    )
    before = model.positions.numpy()
    total, weight = Steps(model, optimizer, loss, Distribution(), seed=1)(next(iter(windows)))
    # All items are as likely to a model that has learned nothing.
    assert total / weight == pytest.approx(math.log(len(cycles.items)), rel=0.15)
    assert (model.positions.numpy() != before).any()


def test_a_key_that_is_set_goes_before_that_of_the_size():
    config = ModelConfig.model_validate({"size": "base", "layers": 5, "dropout": 0.0})
    assert (config.layers, config.dropout) == (5, 0.0)
    assert (config.width, config.heads, config.history) == (128, 4, 100)


def test_small_is_what_the_keys_have_by_default():
    assert ModelConfig(size="small") == ModelConfig()
    assert ModelConfig().model_dump(include=set(SIZES["small"])) == SIZES["small"]
