"""Small models for tests, made without prepared data."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from features.schema import EventType
from training.cold_items import ItemVectors
from training.config import Config
from training.facts import Facts
from training.item_features import ItemInputs
from training.model import Histories, asked_at
from training.trained import Trained
from training.user_features import no_attributes


def config(**tables):
    """A configuration with the tables given, of a small model unless they say otherwise."""
    small = {"layers": 2, "width": 16, "heads": 2, "history": 8, "dropout": 0.2}
    tables["model"] = {**small, **tables.get("model", {})}
    return Config.model_validate({"data": {"name": "test"}, **tables})


def facts(item_count, **tables):
    """Of items that everybody took, with nothing known of them."""
    settings = config(**tables)
    return Facts(
        config=settings,
        items=ItemInputs(np.zeros((item_count + 1, 0), np.float32), np.array([False] + [True] * item_count)),
        vocabulary=no_attributes(),
        attributes=(),
        kept_types=np.array([weight > 0 for weight in settings.behaviour.type_weights()]),
        surfaces=np.zeros(0, np.int64),
        item_users=np.ones(item_count, np.int64),
        item_times=np.zeros(item_count + 1, np.int64),
        published=np.zeros(item_count + 1, np.int64),
    )


def trained(some_facts, seed=1, ranker=False):
    """A model that has learned nothing, with item vectors drawn by lot."""
    keras.utils.set_random_seed(seed)
    model = some_facts.build()
    rng = np.random.default_rng(seed)
    shape = (model.item_count + 1, some_facts.config.model.width)
    vectors = rng.normal(size=shape).astype(np.float32)
    vectors[0] = 0
    network = None
    if ranker:
        network = some_facts.build_ranker()
        network.set_weights([rng.normal(size=w.shape) * 0.3 for w in network.get_weights()])
    items = ItemVectors(vectors, np.zeros(len(vectors), np.float32))
    return Trained(some_facts, model, items, None, network)


def histories(items, times=None, types=None, request_time=None, features=None):
    """`Histories` from rows of indices; times count up from 1,000,000 unless given."""
    items = np.asarray(items, np.int32)
    if times is None:
        times = np.broadcast_to(np.arange(items.shape[1]) + 1_000_000, items.shape)
    if types is None:
        types = np.full(items.shape, EventType.CLICK)
    times = tf.constant(times, tf.int64)
    asked = times[:, -1:] + 1 if request_time is None else tf.fill((len(items), 1), np.int64(request_time))
    if features is None:
        features = np.zeros((len(items), 1))
    return Histories(
        items=tf.constant(items),
        times=times,
        types=tf.constant(types, tf.int32),
        asked=asked_at(times, asked),
        features=tf.constant(features, tf.int32),
    )


def replaced(some_trained, **changes):
    """The same with other parts."""
    return dataclasses.replace(some_trained, **changes)
