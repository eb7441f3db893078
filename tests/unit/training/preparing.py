"""Preparing a small log, and reading what came of it: for the tests beside it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from training.config import Config
from training.errors import TrainingError
from training.events import PreparedData, prepare

NOON = 1_700_000_000


def config(*, events: dict[str, Any] | None = None, **data: Any) -> Config:
    return Config.model_validate(
        {"data": {"name": "log", "min_events_per_user": 1, **data, "events": events or {}}}
    )


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def log(*rows: str, header: str = "user_id,item_id,time") -> str:
    return "\n".join([header, *rows]) + "\n"


def run(
    folder: Path,
    events: str | bytes | Path,
    settings: Config | None = None,
    *,
    items: str | bytes | Path | None = None,
    users: str | Path | None = None,
    excluded: frozenset[str] = frozenset(),
) -> PreparedData:
    def as_file(name: str, content: str | bytes | Path | None) -> Path | None:
        return content if content is None or isinstance(content, Path) else write(folder / name, content)

    return prepare(
        settings or config(),
        events=as_file("events.csv", events),
        items=as_file("items.csv", items),
        users=as_file("users.csv", users),
        state_dir=folder / "var",
        excluded_users=excluded,
    )


def rows(done: PreparedData, name: str = "events") -> list[dict[str, Any]]:
    return pq.read_table(done.folder / f"{name}.parquet").to_pylist()  # type: ignore[no-any-return]  # pyarrow


def quarantine(done: PreparedData) -> list[tuple[int, str]]:
    with (done.folder / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
        return [(int(row["line"]), row["reason"]) for row in csv.DictReader(stream)]


def fault(folder: Path, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        run(folder, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    left = list((folder / "var" / "data").glob("*")) if (folder / "var" / "data").exists() else []
    assert [path for path in left if path.is_dir()] == [], "something was left behind"
    return message
