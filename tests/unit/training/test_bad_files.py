"""Preparing a log: what a bad file is answered with."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.preparing import NOON, config, fault, log, run
from training.errors import TrainingError


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ("", ["events.csv, line 1", "empty"]),
        ("user_id,item_id,time\n", ["events.csv, line 2", "the file ends"]),
        (
            "user_id,item_id,when\na,x,1\n",
            ["events.csv, line 1", "'time'", "data.events.columns.time", "'when'"],
        ),
        ("user_id,item_id,time,Time\na,x,1,1\n", ["events.csv, line 1", "'time'", "once"]),
        (log("a,x,", "a,y,"), ["events.csv", "'time'", "empty in every row"]),
        (log("a,x,", "a,x,14.11.2023"), ["events.csv, line 3", "'14.11.2023'", "'time'", "ISO 8601"]),
        (log("a,x,1700000000000000000"), ["events.csv, line 2", "'1700000000000000000'", "milliseconds"]),
        (log("a,x,60", "a,y,60"), ["events.csv, line 2", "2 rows", "time out of range"]),
        (b"\x1f\x8b\x08\0\0\0\0\0", ["events.csv", "neither CSV nor Parquet"]),
        (log("a,x", "b,x"), ["events.csv, line 2", "2 rows", "3 columns", "wrong number of columns"]),
        (b"PAR1 and no more", ["events.csv", "not a readable Parquet file"]),
    ],
)
def test_a_bad_events_file_is_told_in_one_sentence(
    tmp_path: Path, events: str | bytes, words: list[str]
) -> None:
    message = fault(tmp_path, events)
    for word in words:
        assert word in message


def test_too_few_events_for_every_user_is_bad_input(tmp_path: Path) -> None:
    message = fault(tmp_path, log(f"a,x,{NOON}", f"b,x,{NOON}"), config(min_events_per_user=3))
    assert "no user has the 3 usable events" in message
    assert "data.min_events_per_user" in message


def test_a_set_time_format_that_no_row_has_is_bad_input(tmp_path: Path) -> None:
    message = fault(tmp_path, log("a,x,2023-11-14"), config(events={"time_format": "seconds"}))
    assert "line 2" in message
    assert "data.events.time_format" in message


def test_a_parquet_file_without_rows_is_bad_input(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": pa.array([], pa.string())}), tmp_path / "e.parquet")
    assert "e.parquet has columns but no rows" in fault(tmp_path, tmp_path / "e.parquet")


def test_an_id_column_that_holds_lists_is_bad_input(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [["a"]], "item_id": ["x"], "time": [NOON]}), tmp_path / "e.parquet")
    message = fault(tmp_path, tmp_path / "e.parquet")
    assert "e.parquet: column 'user_id'" in message


def test_missing_files_are_bad_input(tmp_path: Path) -> None:
    assert "absent.csv cannot be read: No such file" in fault(tmp_path, tmp_path / "absent.csv")
    assert "--events FILE" in fault(tmp_path, None)
    assert "training/configs/example-own-data.toml" in fault(
        tmp_path, log(f"a,x,{NOON}"), config(source="movielens-100k")
    )


def test_a_failed_preparation_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,x,{NOON}"))
    before = {path.name: path.read_bytes() for path in done.folder.iterdir()}
    with pytest.raises(TrainingError):
        run(tmp_path, log("a,x,never"))
    assert {path.name: path.read_bytes() for path in done.folder.iterdir()} == before
    assert [path.name for path in done.folder.parent.iterdir() if path.is_dir()] == ["log"]
