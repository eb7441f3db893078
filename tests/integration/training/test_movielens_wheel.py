"""MovieLens-100K from the package registry, prepared whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from features.schema import EventType
from training.config import load_config
from training.events import prepare

CONFIG = Path(__file__).parents[3] / "training" / "configs" / "movielens-small.toml"


def test_movielens_100k_is_fetched_and_every_rating_is_an_event(tmp_path: Path) -> None:
    done = prepare(
        load_config(CONFIG),
        events=None,
        items=None,
        users=None,
        state_dir=tmp_path,
        excluded_users=frozenset(),
    )
    assert (done.report.events, done.report.users, done.report.items) == (100_000, 943, 1_682)
    events = pq.read_table(done.folder / "events.parquet").to_pydict()
    assert set(events["type"]) == {EventType.RATE}
    assert set(events["weight"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    items = {row["item_id"]: row for row in pq.read_table(done.folder / "items.parquet").to_pylist()}
    assert items["1"] == {
        "item_id": "1",
        "title": "Toy Story (1995)",
        "categories": ["Animation", "Children's", "Comedy"],
        "text": "Toy Story (1995). Animation, Children's, Comedy",
        "published": None,
    }
    users = pq.read_table(done.folder / "users.parquet")
    assert users.column_names == ["user_id", "age", "gender", "occupation", "zip_code"]
