"""Preparing a log: what users were shown without doing anything with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.preparing import NOON, config, log, quarantine, rows, run
from training import preparation
from training.config import Config
from training.dataset import open_prepared
from training.events import print_report

HEADER = "user_id,item_id,time,type,where,weight"


def shown(**data: Any) -> Config:
    columns = {"type": "type", "surface": "where", "weight": "weight"}
    return config(events={"columns": columns, "exposures": ["seen", "CLICK"]}, **data)


def test_exposures_have_a_file_of_their_own_sorted_by_user_time_and_item(tmp_path: Path) -> None:
    text = log(
        f"b,x,{NOON},seen,home,1",
        f"a,z,{NOON}, seen , ,much",
        f"a,y,{NOON},CLICK,search,",
        f"a,w,{NOON - 1},seen,home,",
        f"a,x,{NOON},VIEW,home,1",
        f"b,x,{NOON},VIEW,home,1",
        header=HEADER,
    )
    done = run(tmp_path, text, shown())
    assert [tuple(row.values()) for row in rows(done, "exposures")] == [
        ("a", "w", NOON - 1, "home"),
        ("a", "y", NOON, "search"),
        ("a", "z", NOON, None),
        ("b", "x", NOON, "home"),
    ]
    assert [(row["user_id"], row["item_id"]) for row in rows(done)] == [("a", "x"), ("b", "x")]
    schema = pq.read_schema(done.folder / "exposures.parquet")
    assert [(column.name, column.type) for column in schema] == [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("time", pa.int64()),
        ("surface", pa.string()),
    ]


def test_exposures_are_cleaned_like_events_and_every_row_is_accounted_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = log(
        f"a,x,{NOON},VIEW,home,1",
        f"a,x,{NOON},seen,home,",
        f"a,x,{NOON},CLICK,search,",
        f"a,nowhere,{NOON},seen,,",
        "a,x,never,seen,,",
        "a,x,0,seen,,",
        f",x,{NOON},seen,,",
        f"a,x,{NOON},stare,,",
        f"gone,x,{NOON},seen,,",
        f"a,x,{NOON},seen",
        header=HEADER,
    )
    done = run(tmp_path, text, shown(), items="item_id,title\nx,X\n", excluded=frozenset({"gone"}))
    assert [tuple(row.values()) for row in rows(done, "exposures")] == [("a", "x", NOON, "home")]
    assert quarantine(done) == [
        (4, "duplicate exposure"),
        (5, "item is not in the items file"),
        (6, "unreadable time"),
        (7, "time out of range"),
        (8, "user id is missing"),
        (9, "unknown event type"),
        (10, "forgotten user"),
        (11, "wrong number of columns"),
    ]
    account = done.report.events_file
    assert (account.rows_read, account.rows_kept, account.exposures, done.report.events) == (10, 1, 1, 1)
    print_report(done.report, done.folder)
    assert "kept as exposures" in capsys.readouterr().out


def test_exposures_do_not_make_a_user_and_go_with_the_user(tmp_path: Path) -> None:
    text = log(
        f"a,x,{NOON},VIEW,,",
        f"a,y,{NOON},VIEW,,",
        f"a,z,{NOON},seen,,",
        f"b,x,{NOON},VIEW,,",
        f"b,y,{NOON},seen,,",
        f"c,x,{NOON},seen,,",
        f"c,y,{NOON},seen,,",
        header=HEADER,
    )
    done = run(tmp_path, text, shown(min_events_per_user=2))
    assert {row["user_id"] for row in rows(done) + rows(done, "exposures")} == {"a"}
    assert quarantine(done) == [(line, "user has too few events") for line in (5, 6, 7, 8)]


def test_an_item_that_was_only_shown_is_in_a_catalogue_without_items_file(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON},VIEW,,", f"a,y,{NOON},seen,,", header=HEADER)
    assert [row["item_id"] for row in rows(run(tmp_path, text, shown()), "items")] == ["x", "y"]


def test_there_is_no_file_where_nothing_was_only_shown(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,x,{NOON},VIEW,,", header=HEADER), shown())
    assert not (done.folder / "exposures.parquet").exists()
    assert list(open_prepared(done.folder).exposures()) == []


def test_exposures_that_are_in_the_future_no_more_make_it_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = log(f"a,x,{NOON},VIEW,,", f"a,x,{NOON + 7 * 86_400},seen,,", header=HEADER)
    monkeypatch.setattr(preparation.time, "time", lambda: NOON + 60.0)
    first = run(tmp_path, text, shown())
    monkeypatch.setattr(preparation.time, "time", lambda: NOON + 8 * 86_400.0)
    later = run(tmp_path, text, shown(), excluded=frozenset("c"))
    assert (first.report.events_file.exposures, later.report.events_file.exposures) == (0, 1)
    assert later.fingerprint != first.fingerprint


def test_a_folder_that_lost_its_exposures_is_prepared_again(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON},VIEW,,", f"a,y,{NOON},seen,,", header=HEADER)
    done = run(tmp_path, text, shown())
    assert run(tmp_path, text, shown()).reused
    (done.folder / "exposures.parquet").unlink()
    assert not run(tmp_path, text, shown()).reused
