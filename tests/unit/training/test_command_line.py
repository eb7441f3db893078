"""`python -m training` with a configuration that names its files."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from features.catalog import CatalogError
from features.settings import load_settings
from features.store import open_store
from training.__main__ import main
from training.exports import Exports

CONFIG = """
[data]
name = "shop"
source = "files"
min_events_per_user = 1
[data.events]
path = "events.csv"
[data.items]
path = "goods/items.csv"
"""
EVENTS = "user_id,item_id,time\nu,a,1700000000\nu,b,1700000060\n"
# Prepares, and says which of the slow modules that took.
RUN = """
import json, sys
from training.__main__ import main
assert main(sys.argv[1:]) == 0
print(json.dumps([name for name in ("ibis", "duckdb", "tensorflow", "matplotlib") if name in sys.modules]))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A configuration with its files beside it; returns its path."""
    (tmp_path / "goods").mkdir()
    (tmp_path / "goods" / "items.csv").write_text("item_id,title\na,Axe\nb,Bow\n")
    (tmp_path / "events.csv").write_text(EVENTS)
    path = tmp_path / "shop.toml"
    path.write_text(CONFIG)
    return path


def prepare(config: Path, *more: str) -> int:
    return main(["prepare", "--config", str(config), "--state-dir", str(config.parent / "var"), *more])


def prepared(config: Path, name: str, column: str) -> list[str]:
    table = pq.read_table(config.parent / "var" / "data" / "shop" / f"{name}.parquet")
    return sorted(set(table.column(column).to_pylist()))


def test_files_that_the_configuration_names_are_prepared(shop: Path) -> None:
    assert prepare(shop) == 0
    assert prepared(shop, "items", "title") == ["Axe", "Bow"]
    assert prepared(shop, "events", "user_id") == ["u"]


def test_files_on_the_command_line_go_before_those_of_the_configuration(shop: Path) -> None:
    other = shop.parent / "other.csv"
    other.write_text(EVENTS.replace("u,", "v,"))
    assert prepare(shop, "--events", str(other)) == 0
    assert prepared(shop, "events", "user_id") == ["v"]
    assert prepared(shop, "items", "title") == ["Axe", "Bow"]


def test_a_file_that_is_not_there_is_named(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.parent / "goods" / "items.csv").unlink()
    assert prepare(shop) == 2
    assert str(shop.parent / "goods" / "items.csv") in capsys.readouterr().err


def test_no_file_at_all_is_answered_with_both_ways_to_name_one(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.write_text('[data]\nname = "shop"\n')
    assert prepare(shop) == 2
    error = capsys.readouterr().err
    assert "data.events.path" in error
    assert "--events" in error


@pytest.mark.parametrize(
    ("items", "purpose"), [("abc", "train on"), ("abab", "validate by"), ("abca", "test by")]
)
def test_a_log_that_leaves_nothing_to_train_on_or_to_judge_by_is_refused_before_training(
    shop: Path, capsys: pytest.CaptureFixture[str], items: str, purpose: str
) -> None:
    rows = [f"{user},{item},{1700000000 + i}" for user in "uvw" for i, item in enumerate(items)]
    log = shop.parent / "short.csv"
    log.write_text("\n".join(["user_id,item_id,time", *rows]) + "\n")
    (shop.parent / "goods" / "items.csv").write_text("item_id,title\na,Axe\nb,Bow\nc,Cap\n")
    arguments = ["run", "--config", str(shop), "--state-dir", str(shop.parent / "var")]
    assert main([*arguments, "--events", str(log)]) == 2
    error = capsys.readouterr().err
    assert f"the {len(rows)} events left after cleaning leave nothing to {purpose};" in error
    assert "4 events or more" in error
    assert "data.min_events_per_user is 1" in error
    assert {path.name for path in (shop.parent / "var").iterdir()} == {"data"}


def test_forgotten_users_are_left_out_wherever_the_data_goes(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def forget(user: str) -> None:
        store = open_store(load_settings())
        await store.forget(user)
        await store.close()

    monkeypatch.setenv("RIPTIDE_STATE_DIR", str(shop.parent / "live"))
    (shop.parent / "events.csv").write_text(EVENTS + "v,a,1700000000\n")
    assert prepare(shop) == 0
    assert prepared(shop, "events", "user_id") == ["u", "v"]
    asyncio.run(forget("v"))
    capsys.readouterr()
    assert prepare(shop) == 0
    assert prepared(shop, "events", "user_id") == ["u"]
    assert "prepared again, as the list of forgotten users has changed" in capsys.readouterr().out


def test_a_catalogue_that_cannot_be_written_is_said(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise CatalogError("catalog.lmdb: the catalogue cannot be written (no space)")

    assert prepare(shop) == 0
    monkeypatch.setattr(Exports, "_result", lambda *_: SimpleNamespace(seed=1, fingerprint=""))
    monkeypatch.setattr("training.exports.existing_export", lambda *_: None)
    monkeypatch.setattr("training.facts.gather_facts", lambda *_: None)
    monkeypatch.setattr("training.trained.load_trained", lambda *_: None)
    monkeypatch.setattr("training.exports.export", full)
    assert main(["export", "--config", str(shop), "--state-dir", str(shop.parent / "var")]) == 2
    assert capsys.readouterr().err == "catalog.lmdb: the catalogue cannot be written (no space)\n"


def test_moved_files_are_not_prepared_again(shop: Path) -> None:
    assert prepare(shop) == 0
    report = shop.parent / "var" / "data" / "shop" / "report.json"
    before = report.stat().st_ino
    (shop.parent / "events.csv").rename(shop.parent / "log.csv")
    shop.write_text(CONFIG.replace("events.csv", "log.csv"))
    assert prepare(shop) == 0
    assert report.stat().st_ino == before


def test_only_its_owner_can_open_what_is_prepared(shop: Path) -> None:
    assert prepare(shop) == 0
    for folder in ("var", "var/data/shop"):
        assert (shop.parent / folder).stat().st_mode & 0o777 == 0o700


def test_who_finds_the_data_prepared_does_not_wait_for_ibis(shop: Path) -> None:
    words = ["prepare", "--config", str(shop), "--state-dir", str(shop.parent / "var")]
    needed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words], capture_output=True, text=True, timeout=120, check=True
        )
        needed.append(json.loads(done.stdout.splitlines()[-1]))
    assert needed == [["ibis", "duckdb"], []]
