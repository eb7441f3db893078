"""`python -m benchmarks.synthetic_export`: an export as training leaves it, of a model that was not trained.

Item vectors are those of the world, the encoder's and the ranking network's weights are drawn by lot: what a
call costs does not depend on what they are. All else, the graph, the catalogue, golden requests, goes the way
of any export (`training.export`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic_world import World, make_world
from features.schema import EventType
from training.checkpoint import Epoch
from training.config import Config
from training.dataset import Prepared, open_prepared
from training.evaluate import Evaluation
from training.results import Result
from training.tensorflow_import import import_tensorflow

_LOGGED_USERS = 1_000
_WEIGHTS = 0.5
"""Of the standard deviation that is usual at the start of a training: user vectors stay near the items that
they come from, as after it."""


def config_of(items: int, size: str, history: int | None) -> Config:
    """The configuration that such a model would be trained with."""
    model = {"size": size, "text": "none", **({"history": history} if history else {})}
    return Config.model_validate({"data": {"name": f"synthetic-{items}-{size}"}, "model": model})


def write_export(config: Config, world: World, folder: Path, seed: int = 1) -> None:
    """Writes the export folder.

    Raises:
        TrainingError: see `training.export.export`.
    """
    import_tensorflow()
    from training.cold_items import ItemVectors
    from training.export import export
    from training.facts import Facts
    from training.item_features import ItemInputs
    from training.trained import Trained
    from training.user_features import no_attributes

    count = world.item_count
    had = np.ones(count + 1, np.bool_)
    had[0] = False
    users = world.users_of_items()
    facts = Facts(
        config=config,
        items=ItemInputs(np.zeros((count + 1, 0), np.float32), had),
        vocabulary=no_attributes(),
        attributes=(),
        kept_types=np.array(config.behaviour.type_weights()) > 0,
        surfaces=np.zeros(0, np.int64),
        item_users=users,
        item_times=np.zeros(count + 1, np.int64),
        published=np.zeros(count + 1, np.int64),
    )
    model, ranker = facts.build(), facts.build_ranker()
    draw = np.random.default_rng([seed, 1])
    table = {id(weight) for weight in model.table.weights}
    for weight in [*model.weights, *ranker.weights]:
        if id(weight) not in table and len(weight.shape) == 2:
            scale = _WEIGHTS * np.sqrt(2 / sum(weight.shape))
            weight.assign(draw.normal(0, scale, tuple(weight.shape)).astype(np.float32))
    vectors = ItemVectors(world.vectors(config.model.width), np.zeros(count + 1, np.float32))
    with tempfile.TemporaryDirectory() as temporary:
        prepared = _prepared(Path(temporary), config, world)
        judged = Path(temporary) / "judged.npz"
        np.savez(judged)
        export(
            config,
            prepared,
            prepared.items,
            Trained(facts, model, vectors, None, ranker),
            users,
            _nothing_judged(seed),
            judged,
            folder,
            fingerprint="0" * 64,
        )


def _prepared(folder: Path, config: Config, world: World) -> Prepared:
    """A prepared data folder of some users of the world: golden requests come from it."""
    items = world.items()
    catalogue = {
        "item_id": pa.array([item.item_id for item in items], pa.string()),
        "title": pa.array([item.title for item in items], pa.string()),
        "categories": pa.array([list(item.categories) for item in items], pa.list_(pa.string())),
        "text": pa.array([item.title for item in items], pa.string()),
        "published": pa.nulls(len(items), pa.int64()),
    }
    pq.write_table(pa.table(catalogue), folder / "items.parquet")
    length = config.model.history
    log = sorted(world.histories(_LOGGED_USERS, length, int(time.time())))
    rows = len(log) * length
    events = {
        "user_id": pa.array([user for user, _, _ in log for _ in range(length)], pa.string()),
        "item_id": pa.array([world.item_id(i) for _, own, _ in log for i in own.tolist()], pa.string()),
        "time": pa.array(np.concatenate([times for _, _, times in log])),
        "type": pa.array(np.full(rows, int(EventType.CLICK), np.uint8)),
        "weight": pa.array(np.ones(rows, np.float32)),
        "surface": pa.nulls(rows, pa.string()),
    }
    pq.write_table(pa.table(events), folder / "events.parquet")
    (folder / "report.json").write_text(json.dumps({"fingerprint": "0" * 64}), encoding="utf-8")
    return open_prepared(folder, config.behaviour)


def _nothing_judged(seed: int) -> Result:
    """The result of a training that never was."""
    nobody = Evaluation("synthetic", 0, {})
    return Result(
        seed=seed,
        split="none",
        fingerprint="0" * 64,
        curve=(Epoch(1, 0.0, 0.0, 0.0, 0.0, 0.0),),
        best_epoch=1,
        retrieval_validation=nobody,
        retrieval_test=nobody,
        ranking=None,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic_export")
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--size", default="small")
    parser.add_argument("--history", type=int, default=None, help="T, if not that of the size")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = config_of(arguments.items, arguments.size, arguments.history)
    write_export(config, make_world(arguments.items), arguments.out)


if __name__ == "__main__":
    main()
