"""A tiny model of the real trainer in service: the served graph, asked with what the gateway fills in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalog import Catalog
from features.record import EMPTY_RECORD, Event, with_events
from features.schema import EventType, item_key
from gateway.fit import Tensor, read_manifest
from gateway.model_inputs import Row, model_inputs
from gateway.page import PageRequest
from gateway.versions import ServingVersion
from training.baselines import count
from training.cold_items import ItemVectors
from training.config import Config
from training.dataset import Prepared, open_prepared
from training.facts import gather_facts
from training.model_config import BehaviourConfig
from training.serving import Served
from training.splits import LeaveOneOut
from training.train import Trainer
from training.trained import Trained

NOW, DAY_S = 1_700_000_000, 86_400
ITEMS = [f"{department}{n}" for department in "abcd" for n in range(6)]
"""Six of each of four departments, a to d."""
T, D = 12, 16

History = Sequence[tuple[str, EventType, int]]
"""(item id, type, time) of each event, oldest first."""


def tiny(behaviour: BehaviourConfig, epochs: int = 1) -> Config:
    """The configuration of a model that trains in a second or two."""
    return Config.model_validate(
        {
            "data": {"name": "tiny"},
            "model": {"width": D, "heads": 1, "history": T, "dropout": 0.0, "text": "none"},
            "ranker": {"train": False},
            "behaviour": behaviour.model_dump(),
            "training": {"epochs": epochs, "learning_rate": 0.01, "warmup_steps": 4},
        }
    )


def prepared(
    folder: Path, log: Mapping[str, History], published: Mapping[str, int] | None = None
) -> Prepared:
    """A prepared folder with all of `ITEMS`."""
    folder.mkdir()
    rows = [(user, *event) for user in sorted(log) for event in log[user]]
    users, items, types, times = zip(*rows, strict=True)
    events = {
        "user_id": pa.array(users, pa.string()),
        "item_id": pa.array(items, pa.string()),
        "time": pa.array(times, pa.int64()),
        "type": pa.array([int(kind) for kind in types], pa.uint8()),
        "weight": pa.array(np.ones(len(rows)), pa.float32()),
        "surface": pa.nulls(len(rows), pa.string()),
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    catalogue = {
        "item_id": pa.array(ITEMS, pa.string()),
        "title": pa.array(ITEMS, pa.string()),
        "categories": pa.array([[] for _ in ITEMS], pa.list_(pa.string())),
        "text": pa.array(ITEMS, pa.string()),
        "published": pa.array([(published or {}).get(item) for item in ITEMS], pa.int64()),
    }
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    (folder / "report.json").write_text(json.dumps({"fingerprint": "f" * 64}), encoding="utf-8")
    return open_prepared(folder)


def trained(
    behaviour: BehaviourConfig, data: Prepared, *, epochs: int = 0, weights: Sequence[Any] | None = None
) -> Trained:
    """A model of the real trainer; without epochs one as it begins, or with these weights."""
    counts = count((LeaveOneOut().training_part(user) for user in data.histories()), len(ITEMS))
    facts = gather_facts(tiny(behaviour, max(1, epochs)), data, counts, data.folder / "cache")
    if epochs:
        trainer = Trainer(facts, data, LeaveOneOut(), counts, seed=1)
        trainer.run(data.folder / f"{uuid4()}.npz", lambda *_: None, lambda *_: None)
        model = trainer.model
    else:
        model = facts.build()
    if weights is not None:
        model.set_weights(weights)
    table = model.table().numpy()
    return Trained(facts, model, ItemVectors(table, np.zeros(len(table), np.float32)), None, None)


@dataclass(frozen=True)
class Page:
    """Items, best first, and their scores."""

    items: list[str]
    scores: dict[str, float]

    def mean(self, department: str) -> float:
        """The score of a department's items, on average."""
        return float(np.mean([score for item, score in self.scores.items() if item[0] == department]))


class Recommender:
    """A model in service: the graph that is exported, called with what the gateway fills in."""

    def __init__(self, model: Trained, data: Prepared) -> None:
        said = data.folder / "manifest.json"
        behaviour = model.facts.config.behaviour
        fields = {"widths": {}, "consumes": behaviour.consuming, "ignores": behaviour.ignored}
        said.write_text(json.dumps(fields), encoding="utf-8")
        self._graph = Served(model, data.items, data.categories, page_size=len(ITEMS))
        inputs = {spec.name: Tensor("", spec.shape[1] or 0) for spec in self._graph.recommend.input_signature}
        # Without a category filter and attributes the gateway has no use for the catalogue.
        catalogue = cast(Catalog, None)
        read = read_manifest(said)
        self._version = ServingVersion("tiny", 1, inputs, catalogue, (), read.consumes, read.counts)
        self._names = {item_key(item): item for item in ITEMS}

    def page(self, history: History, *, time: int = NOW, include_seen: bool = False) -> Page:
        """The page of a user; `include_seen`: with what the setting leaves out, too."""
        events = [Event("u", item, kind, at) for item, kind, at in history]
        record = with_events(EMPTY_RECORD, events, 100).record
        row = Row(record, None, PageRequest("u", 10, include_seen=include_seen, time=time))
        answer = self._graph.recommend(**model_inputs(self._version, [row], time))
        keys, scores = answer["item_keys"].numpy()[0].tolist(), answer["scores"].numpy()[0].tolist()
        known = [(self._names[key], score) for key, score in zip(keys, scores, strict=True) if key]
        return Page([item for item, _ in known], dict(known))


def every(items: Iterable[str], kind: EventType, start: int) -> list[tuple[str, EventType, int]]:
    """An event on each of the items, ten seconds apart."""
    return [(item, kind, start + 10 * i) for i, item in enumerate(items)]
