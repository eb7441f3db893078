"""Preparing a log: what is kept, what is dropped and why, and what a bad file is answered with."""

from __future__ import annotations

import csv
import json
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.schema import EventType
from training.config import Config
from training.errors import TrainingError
from training.events import PreparedData, prepare, print_report

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


# What is kept


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


# What is dropped


def test_every_bad_row_is_quarantined_with_its_line_and_reason(tmp_path: Path) -> None:
    settings = config(events={"columns": {"type": "type", "weight": "weight"}}, min_events_per_user=2)
    text = log(
        f"a,x,{NOON},VIEW,1",
        f",x,{NOON},VIEW,1",
        f"a,,{NOON},VIEW,1",
        f"{'é' * 129},x,{NOON},VIEW,1",
        "a,x,yesterday,VIEW,1",
        "a,x,0,VIEW,1",
        f"a,x,{NOON * 2},VIEW,1",
        f"a,x,{NOON},STARE,1",
        f"a,x,{NOON},VIEW,inf",
        f"a,x,{NOON},VIEW,much",
        f"a,nowhere,{NOON},VIEW,1",
        f"a,x,{NOON}.4,VIEW,9",
        f"b,x,{NOON},VIEW,1",
        f"a,x,{NOON},VIEW,1,more",
        f'a,"x,{NOON},VIEW,1',
        f'a,"y\ny",{NOON},VIEW,1',
        f"a,y,{NOON},VIEW,nan",
        f"a,x,{NOON},CLICK,1",
        header="user_id,item_id,time,type,weight",
    )
    done = run(tmp_path, text, settings, items='item_id,title\nx,X\n"y\ny",Y\n')
    assert quarantine(done) == [
        (3, "user id is missing"),
        (4, "item id is missing"),
        (5, "user id is longer than 256 bytes"),
        (6, "unreadable time"),
        (7, "time out of range"),
        (8, "time out of range"),
        (9, "unknown event type"),
        (10, "weight is not a finite number"),
        (11, "weight is not a finite number"),
        (12, "item is not in the items file"),
        (13, "duplicate event"),
        (14, "user has too few events"),
        (15, "wrong number of columns"),
        (16, "unclosed or misplaced quote"),
        (19, "weight is not a finite number"),
    ]
    assert done.report.events_file.rows_read == 18
    assert done.report.events == 3


def test_a_dropped_row_can_be_read_in_the_quarantine(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,x,{NOON}", 'a,"say ""hi""",soon', "a,x"))
    with (done.folder / "quarantine.csv").open(newline="", encoding="utf-8") as stream:
        first, second = csv.DictReader(stream)
    assert json.loads(first["row"]) == {"user_id": "a", "item_id": 'say "hi"', "time": "soon"}
    assert (second["row"], second["file"]) == ("a,x", str(tmp_path / "events.csv"))


def test_bytes_that_are_not_text_cost_only_their_row(tmp_path: Path) -> None:
    done = run(tmp_path, f"user_id,item_id,time\na,x,{NOON}\nb\xff,x,{NOON}\nc,x,{NOON}\n".encode("latin-1"))
    assert [row["user_id"] for row in rows(done)] == ["a", "c"]
    assert quarantine(done) == [(3, "not text in utf-8")]


def test_a_file_in_another_encoding_is_read_in_it(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"Zoë,x,{NOON}").encode("latin-1"), config(events={"encoding": "latin-1"}))
    assert rows(done)[0]["user_id"] == "Zoë"


def test_the_line_of_a_parquet_row_is_its_number(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a", None, "a"], "item_id": ["x", "x", "y"], "time": [NOON, NOON, None]})
    pq.write_table(table, tmp_path / "e.parquet")
    assert quarantine(run(tmp_path, tmp_path / "e.parquet")) == [
        (2, "user id is missing"),
        (3, "unreadable time"),
    ]


def test_nothing_of_a_forgotten_user_is_written_down(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        log(f"secret,x,{NOON}", "secret,x,never", 'secret,x,"1', "secret,x", f"a,x,{NOON}"),
        users="user_id,country\nsecret,NZ\na,FR\n",
        excluded=frozenset({"secret"}),
    )
    assert done.report.events_file.rows_dropped["forgotten user"] == 2
    assert [row["user_id"] for row in rows(done, "users")] == ["a"]
    for path in done.folder.iterdir():
        assert b"secret" not in path.read_bytes()
        assert b"NZ" not in path.read_bytes()


ODD_CELL = st.sampled_from(["a", "b", "é", "", " ", "日本", "x" * 300, '"', "1,2", "\n"])
ODD_ROW = st.tuples(
    ODD_CELL,
    ODD_CELL,
    st.sampled_from([str(NOON), str(NOON + 1), "", "soon", "-1", "9" * 30, "1e400", "nan"]),
    st.sampled_from(["1", "", "inf", "nan", "1e39", "-0.5", "x"]),
)
FEW_RUNS = settings(
    max_examples=15,  # each prepares a log, which takes a third of a second
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FEW_RUNS
@given(st.lists(ODD_ROW, max_size=12), st.text(alphabet='ab,"\n', max_size=12), st.integers(1, 3))
def test_every_row_is_either_kept_or_in_the_quarantine(
    tmp_path: Path, odd: list[tuple[str, ...]], junk: str, least: int
) -> None:
    path = tmp_path / "events.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user_id", "item_id", "time", "weight"])
        writer.writerows(odd)
        writer.writerows([("good", f"item {n}", NOON, 1) for n in range(3)])
        stream.write(junk)
    settings = config(events={"columns": {"weight": "weight"}}, min_events_per_user=least)
    done = run(tmp_path, path, settings)
    account = done.report.events_file
    dropped = quarantine(done)
    assert account.rows_read == account.rows_kept + sum(account.rows_dropped.values())
    assert len(rows(done)) == account.rows_kept >= 3
    assert len(dropped) == sum(account.rows_dropped.values())
    assert len({line for line, _ in dropped}) == len(dropped)


ID = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)


@FEW_RUNS
@given(
    st.lists(
        st.tuples(ID, ID, st.integers(NOON, NOON + 10**7), st.sampled_from(EventType)),
        min_size=1,
        max_size=20,
    )
)
def test_any_valid_log_comes_back_whole(
    tmp_path: Path, events: list[tuple[str, str, int, EventType]]
) -> None:
    path = tmp_path / "events.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(
            [
                ("user_id", "item_id", "time", "type"),
                *((user, item, moment, kind.name) for user, item, moment, kind in events),
            ]
        )
    done = run(tmp_path, path, config(events={"columns": {"type": "type"}}))
    wanted = {
        (unicodedata.normalize("NFC", user), unicodedata.normalize("NFC", item), moment, int(kind))
        for user, item, moment, kind in events
    }
    got = [(row["user_id"], row["item_id"], row["time"], row["type"]) for row in rows(done)]
    assert len(got) == len(wanted)
    assert set(got) == wanted


# Items and users


def test_titles_carry_the_year_and_fall_back_to_the_id(tmp_path: Path) -> None:
    settings = Config.model_validate(
        {"data": {"name": "log", "min_events_per_user": 1, "items": {"columns": {"year": "year"}}}}
    )
    items = "item_id,title,year\n1,Toy Story,1995\n2,Heat (1995),1995\n3,,1995\n4,Nell,\n"
    titles = [row["title"] for row in rows(run(tmp_path, log(f"a,1,{NOON}"), settings, items=items), "items")]
    assert titles == ["Toy Story (1995)", "Heat (1995)", "3", "Nell"]


def test_categories_are_split_cleaned_and_free_of_copies(tmp_path: Path) -> None:
    settings = Config.model_validate(
        {
            "data": {
                "name": "log",
                "min_events_per_user": 1,
                "items": {"columns": {"categories": "tags"}, "no_categories": ["(none)"]},
            }
        }
    )
    items = "item_id,title,tags,price\n1,A,b| a |b||,3.50\n2,B,(none),\n3,C,,1\n"
    got = rows(run(tmp_path, log(f"a,1,{NOON}"), settings, items=items), "items")
    assert [(row["categories"], row["price"]) for row in got] == [(["a", "b"], "3.50"), ([], ""), ([], "1")]


def test_a_list_column_of_categories_needs_no_separator(tmp_path: Path) -> None:
    settings = Config.model_validate(
        {"data": {"name": "log", "min_events_per_user": 1, "items": {"columns": {"categories": "tags"}}}}
    )
    table = pa.table({"item_id": [1, 2], "title": ["A", None], "tags": [["x|y", None], None]})
    pq.write_table(table, tmp_path / "i.parquet")
    got = rows(run(tmp_path, log(f"a,1,{NOON}"), settings, items=tmp_path / "i.parquet"), "items")
    assert [(row["title"], row["categories"]) for row in got] == [("A", ["x|y"]), ("2", [])]


def test_further_columns_of_any_type_are_carried_along(tmp_path: Path) -> None:
    vectors, images = [[0.5, 1.0], [0.0, 2.0], [0.0, 0.0]], [b"\x00\xff", None, b""]
    table = pa.table(
        {"item_id": ["1", "2", "2"], "title": ["A", "B", "C"], "image": images, "vector": vectors}
    )
    pq.write_table(table, tmp_path / "i.parquet")
    done = run(tmp_path, log(f"a,1,{NOON}"), items=tmp_path / "i.parquet")
    assert [(row["image"], row["vector"]) for row in rows(done, "items")] == list(
        zip(images, vectors, strict=True)
    )[:2]
    assert quarantine(done) == [(3, "duplicate item")]


def test_a_further_column_whose_name_is_taken_is_renamed(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,1,{NOON}"), items="item_id,title,Categories\n1,A,x\n")
    assert rows(done, "items") == [
        {"item_id": "1", "title": "A", "categories": [], "Categories_in_file": "x"}
    ]


def test_items_that_only_events_name_are_kept_if_the_configuration_says_so(tmp_path: Path) -> None:
    events, items = log(f"a,1,{NOON}", f"a,9,{NOON}"), "item_id,title,price\n1,A,2\n"
    done = run(tmp_path, events, config(unknown_items="keep"), items=items)
    assert rows(done, "items")[1] == {"item_id": "9", "title": "9", "categories": [], "price": None}
    assert done.report.events == 2


def test_without_an_items_file_every_item_of_the_events_is_one(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,1,{NOON}", f"b,1,{NOON}"))
    assert rows(done, "items") == [{"item_id": "1", "title": "1", "categories": []}]
    assert not (done.folder / "users.parquet").exists()


def test_the_first_of_two_rows_of_an_item_or_a_user_is_kept(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        log(f"a,1,{NOON}"),
        items="item_id,title\n1,A\n1,B\n,C\n",
        users="user_id,age\na,30-39\na,40-49\n",
    )
    assert rows(done, "items")[0]["title"] == "A"
    assert rows(done, "users") == [{"user_id": "a", "age": "30-39"}]
    assert sorted(quarantine(done)) == [
        (3, "duplicate item"),
        (3, "duplicate user"),
        (4, "item id is missing"),
    ]


# Bad input


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


# Reuse


def test_what_a_killed_preparation_left_behind_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "var" / "data" / ".log.new" / "work"
    leftover.mkdir(parents=True)
    assert run(tmp_path, log(f"a,x,{NOON}")).report.events == 1
    assert not leftover.parent.exists()


def test_the_same_input_is_not_prepared_again(tmp_path: Path) -> None:
    first = run(tmp_path, log(f"a,x,{NOON}"))
    again = run(tmp_path, log(f"a,x,{NOON}"), config(memory_limit_mb=512))
    assert (first.reused, again.reused) == (False, True)
    assert again.report == first.report


def test_other_input_settings_or_forgotten_users_are_prepared_again(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON}", f"b,x,{NOON}")
    prepared = [
        run(tmp_path, text),
        run(tmp_path, text + "\n"),
        run(tmp_path, text, config(unknown_items="keep")),
        run(tmp_path, text, excluded=frozenset({"b"})),
    ]
    assert [done.reused for done in prepared] == [False] * 4
    assert len({done.fingerprint for done in prepared}) == 4
    assert [row["user_id"] for row in rows(prepared[-1])] == ["a"]


def test_a_folder_that_lost_a_file_is_prepared_again(tmp_path: Path) -> None:
    text = log(f"a,x,{NOON}")
    (run(tmp_path, text).folder / "items.parquet").unlink()
    assert not run(tmp_path, text).reused


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    text = log(*(f"u{n % 7},i{n % 5},{NOON + n % 11}" for n in range(200)))
    first = (run(tmp_path, text).folder / "events.parquet").read_bytes()
    second = tmp_path / "second"
    second.mkdir()
    assert (run(second, text).folder / "events.parquet").read_bytes() == first


def test_the_printed_report_names_counts_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(tmp_path, log(f"a,x,{NOON}", "a,x,never"))
    print_report(done.report, done.folder)
    printed = capsys.readouterr().out
    assert "dropped: unreadable time" in printed
    assert "1 events of 1 users on 1 items" in printed
