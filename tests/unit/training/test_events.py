"""Preparing a log: which events are kept, and as what."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.schema import EventType
from tests.unit.training.preparing import NOON, config, log, rows, run


def test_events_are_sorted_by_user_then_time_then_item(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"b,x,{NOON}", f"a,y,{NOON + 1}", f"a,z,{NOON}", f"a,x,{NOON}"))
    assert [(row["user_id"], row["item_id"]) for row in rows(done)] == [
        ("a", "x"),
        ("a", "z"),
        ("a", "y"),
        ("b", "x"),
    ]


def test_the_columns_have_the_promised_types(tmp_path: Path) -> None:
    schema = pq.read_schema(run(tmp_path, log(f"a,x,{NOON}")).folder / "events.parquet")
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "time": pa.int64(),
        "type": pa.uint8(),
        "weight": pa.float32(),
        "surface": pa.string(),
    }


def test_two_unicode_spellings_of_an_id_are_one_user(tmp_path: Path) -> None:
    composed, decomposed = "Zo\u00eb", unicodedata.normalize("NFD", "Zo\u00eb")
    done = run(tmp_path, log(f"{composed},x,{NOON}", f"{decomposed},y,{NOON}", f"日本,🎬,{NOON}"))
    assert {row["user_id"] for row in rows(done)} == {composed, "日本"}


@pytest.mark.parametrize("ids", [pa.array([7, 8]), pa.array([7.0, 8.0]), pa.array([7, 8], pa.int32())])
def test_ids_of_numeric_columns_are_read_without_a_decimal_point(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": ids, "item_id": ids, "time": [NOON, NOON]}), tmp_path / "e.parquet")
    assert [row["item_id"] for row in rows(run(tmp_path, tmp_path / "e.parquet"))] == ["7", "8"]


def test_ids_of_csv_files_are_the_text_they_are(tmp_path: Path) -> None:
    assert [row["item_id"] for row in rows(run(tmp_path, log(f"a,007,{NOON}", f"a,7.0,{NOON}")))] == [
        "007",
        "7.0",
    ]


@pytest.mark.parametrize(
    ("cell", "form"),
    [
        ("1700000000", "seconds"),
        ("1700000000.9", "seconds"),
        ("1.7e9", "seconds"),
        ("1700000000999", "milliseconds"),
        ("2023-11-14T22:13:20Z", "iso8601"),
        ("2023-11-14 22:13:20", "iso8601"),
        ("2023-11-14T23:13:20.999+01:00", "iso8601"),
        ("2023-11-15T03:43:20+0530", "iso8601"),
    ],
)
def test_the_time_format_is_found_out(tmp_path: Path, cell: str, form: str) -> None:
    done = run(tmp_path, log(f"a,x,{cell}"))
    assert (rows(done)[0]["time"], done.report.time_format) == (NOON, form)


def test_a_few_odd_times_do_not_decide_the_format(tmp_path: Path) -> None:
    text = log(
        "a,x,99999999999999999999", "a,x,88888888888888888888", "a,x,2023-11-14", f"a,x,{NOON}", "a,y,-1"
    )
    done = run(tmp_path, text)
    assert (done.report.time_format, rows(done)[0]["time"]) == ("seconds", NOON)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([datetime.fromtimestamp(NOON, UTC)], pa.timestamp("us", tz="Asia/Tokyo")),
        pa.array([datetime.fromtimestamp(NOON, UTC).replace(tzinfo=None)], pa.timestamp("ns")),
        pa.array([float(NOON)]),
        pa.array([NOON * 1000]),
    ],
)
def test_parquet_times_of_every_type_are_read(tmp_path: Path, times: pa.Array) -> None:
    pq.write_table(pa.table({"user_id": ["a"], "item_id": ["x"], "time": times}), tmp_path / "e.parquet")
    assert rows(run(tmp_path, tmp_path / "e.parquet"))[0]["time"] == NOON


def test_types_and_weights_come_from_their_columns_or_the_defaults(tmp_path: Path) -> None:
    settings = config(
        events={
            "columns": {"type": "kind", "weight": "value"},
            "types": {"bought": "PURCHASE"},
            "default_type": "VIEW",
            "default_weight": 0.5,
        }
    )
    text = log(
        f"a,x,{NOON},bought,2",
        f"a,y,{NOON},like,",
        f"a,z,{NOON},,3",
        header="user_id,item_id,time,kind,value",
    )
    assert [(row["type"], row["weight"]) for row in rows(run(tmp_path, text, settings))] == [
        (EventType.PURCHASE, 2.0),
        (EventType.LIKE, 0.5),
        (EventType.VIEW, 3.0),
    ]


def test_a_file_without_header_takes_its_column_names_from_the_configuration(tmp_path: Path) -> None:
    settings = config(events={"column_names": ["item_id", "user_id", "time"], "delimiter": ";"})
    assert rows(run(tmp_path, f"x;a;{NOON}\n", settings))[0]["user_id"] == "a"


def test_where_an_event_happened_is_kept_as_the_text_it_is(tmp_path: Path) -> None:
    settings = config(events={"columns": {"surface": "where"}})
    decomposed = unicodedata.normalize("NFD", "Caf\u00e9")
    text = log(
        f"a,x,{NOON}, {decomposed} ",
        f"a,y,{NOON}, ",
        f"a,y,{NOON},too late",
        header="user_id,item_id,time,where",
    )
    assert [row["surface"] for row in rows(run(tmp_path, text, settings))] == ["Caf\u00e9", None]
