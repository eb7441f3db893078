"""The settings shop, media, social and news: files as each of them describes them can be prepared."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from features.schema import EventType
from training.config import load_config
from training.data_config import TimeFormat
from training.dataset import open_prepared
from training.events import prepare

CONFIGS = Path(__file__).parents[3] / "training" / "configs"
NOW = 1_700_000_000


@pytest.mark.parametrize("setting", ["shop", "media", "social", "news"])
def test_files_as_a_setting_describes_them_are_prepared(setting: str, tmp_path: Path) -> None:
    config = load_config(CONFIGS / f"{setting}.toml")
    events, items = config.data.events, config.data.items
    columns, words = events.columns, [*events.types, *events.exposures]
    assert columns.type is not None
    assert columns.surface is not None
    assert events.exposures
    assert {EventType[name] for name in config.behaviour.event_weights} & set(events.types.values())
    log = [
        {
            columns.user_id: f"user-{user}",
            columns.item_id: f"item-{n}",
            columns.time: _written(NOW + n, events.time_format),
            columns.type: word,
            columns.surface: "home",
        }
        for user in range(3)
        for n, word in enumerate(words * 5)
    ]
    catalogue = [
        {
            items.columns.item_id: f"item-{n}",
            items.columns.title or "": f"Title {n}",
            items.columns.categories or "": items.category_separator.join(["one", "two"]),
            items.columns.published or "": _written(NOW - n, items.time_format),
            **dict.fromkeys(items.columns.text, "some words"),
        }
        for n in range(len(words) * 5)
    ]
    users = config.data.users
    people = [
        dict.fromkeys(users.columns.attributes.values(), "x") | {users.columns.user_id: f"user-{user}"}
        for user in range(3)
    ]
    done = prepare(
        config,
        events=_csv(tmp_path / "events.csv", events.delimiter, log),
        items=_csv(tmp_path / "items.csv", items.delimiter, catalogue),
        users=_csv(tmp_path / "users.csv", users.delimiter, people) if users.path else None,
        state_dir=tmp_path / "var",
        excluded_users=frozenset(),
    )
    data = open_prepared(done.folder)
    kinds = np.concatenate([user.types for user in data.histories()])
    assert sorted(set(kinds.tolist())) == sorted(set(events.types.values()))
    assert len(kinds) == 3 * 5 * len(events.types)
    assert sum(len(user.items) for user in data.exposures()) == 3 * 5 * len(events.exposures)
    assert data.categories == ("one", "two")
    assert (data.published > 0).all()


def _written(time: int, form: TimeFormat) -> str:
    if form == "iso8601":
        return datetime.fromtimestamp(time, UTC).isoformat()
    return str(time * 1000 if form == "milliseconds" else time)


def _csv(path: Path, delimiter: str, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path
