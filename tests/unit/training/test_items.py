"""Preparing a log: items and users."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.preparing import NOON, config, fault, log, quarantine, rows, run
from training.config import Config


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
    done = run(tmp_path, log(f"a,1,{NOON}"), items="item_id,title,Categories,Text\n1,A,x,y\n")
    assert rows(done, "items") == [
        {
            "item_id": "1",
            "title": "A",
            "categories": [],
            "text": "A",
            "published": None,
            "Categories_in_file": "x",
            "Text_in_file": "y",
        }
    ]


def test_items_that_only_events_name_are_kept_if_the_configuration_says_so(tmp_path: Path) -> None:
    events, items = log(f"a,1,{NOON}", f"a,9,{NOON}"), "item_id,title,price\n1,A,2\n"
    done = run(tmp_path, events, config(unknown_items="keep"), items=items)
    assert rows(done, "items")[1] == {
        "item_id": "9",
        "title": "9",
        "categories": [],
        "text": "9",
        "published": None,
        "price": None,
    }
    assert done.report.events == 2


def test_without_an_items_file_every_item_of_the_events_is_one(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,1,{NOON}", f"b,1,{NOON}"))
    assert rows(done, "items") == [
        {"item_id": "1", "title": "1", "categories": [], "text": "1", "published": None}
    ]
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


def test_a_language_model_reads_title_categories_and_the_columns_named(tmp_path: Path) -> None:
    columns = {"categories": "tags", "year": "year", "text": ["plot", "cast"]}
    items = (
        "item_id,title,year,tags,plot,cast\n"
        "1,Heat,1995,drama|crime, A heist ,Al Pacino\n2,Nell,,,,Jodie Foster\n3,,,,,\n"
    )
    done = run(tmp_path, log(f"a,1,{NOON}"), config(items={"columns": columns}), items=items)
    assert [row["text"] for row in rows(done, "items")] == [
        "Heat (1995). crime, drama. A heist. Al Pacino",
        "Nell. Jodie Foster",
        "3",
    ]
    assert "plot" not in rows(done, "items")[0]


@pytest.mark.parametrize(
    "cells", [("2023-11-14T22:13:20Z", "soon"), (str(NOON), "1995"), (f"{NOON}000", "0"), (str(NOON), "")]
)
def test_items_know_when_they_were_published_if_that_is_a_time(
    tmp_path: Path, cells: tuple[str, str]
) -> None:
    items = f"item_id,title,since\n1,A,{cells[0]}\n2,B,{cells[0]}\n3,C,{cells[1]}\n"
    settings = config(items={"columns": {"published": "since"}})
    done = run(tmp_path, log(f"a,1,{NOON}"), settings, items=items)
    assert [row["published"] for row in rows(done, "items")] == [NOON, NOON, None]
    assert pq.read_schema(done.folder / "items.parquet").field("published").type == pa.int64()


def test_a_column_of_publication_times_may_be_empty(tmp_path: Path) -> None:
    settings = config(items={"columns": {"published": "since"}})
    done = run(tmp_path, log(f"a,1,{NOON}"), settings, items="item_id,title,since\n1,A, \n")
    assert rows(done, "items")[0]["published"] is None


def test_a_column_of_publication_times_that_holds_none_is_bad_input(tmp_path: Path) -> None:
    settings = config(items={"columns": {"published": "since"}, "time_format": "iso8601"})
    items = "item_id,title,since\n1,A,\n2,B,spring\n"
    message = fault(tmp_path, log(f"a,1,{NOON}"), settings, items=items)
    for word in ["items.csv, line 3", "'spring'", "'since'", "ISO 8601", "data.items.time_format"]:
        assert word in message


def test_a_column_that_the_configuration_names_for_items_must_be_there(tmp_path: Path) -> None:
    settings = config(items={"columns": {"text": ["title", "plot"]}})
    message = fault(tmp_path, log(f"a,1,{NOON}"), settings, items="item_id,title\n1,A\n")
    assert "there is no column 'plot', which data.items.columns.text names" in message


def test_a_separator_that_leaves_too_many_categories_is_said(tmp_path: Path) -> None:
    cells = [f"Drama; Crime; {i}" for i in range(5_000)]
    rows_of = [f"{i},A,{cell}" for i, cell in enumerate([*cells, "Film noir; Comedy; Drama"])]
    settings = config(items={"columns": {"categories": "tags"}})
    items = "\n".join(["item_id,title,tags", *rows_of]) + "\n"
    message = fault(tmp_path, log(f"a,1,{NOON}"), settings, items=items)
    words = [
        "items.csv", "'tags'", "5,001", "'Film noir; Comedy; Drama'", "5,000",
        "data.items.category_separator, '|',",
    ]  # fmt: skip
    for word in words:
        assert word in message
    apart = config(items={"columns": {"categories": "tags"}, "category_separator": ";"})
    assert "5,004" in fault(tmp_path, log(f"a,1,{NOON}"), apart, items=items)


def test_as_many_categories_as_there_may_be_are_kept_and_copies_of_items_do_not_count(tmp_path: Path) -> None:
    rows_of = [f"{i},A,tag {i}" for i in range(5_000)]
    items = "\n".join(["item_id,title,tags", *rows_of, "0,A,tag of a copy"]) + "\n"
    settings = config(items={"columns": {"categories": "tags"}})
    done = run(tmp_path, log(f"a,1,{NOON}"), settings, items=items)
    assert len({row["categories"][0] for row in rows(done, "items")}) == 5_000


def test_a_list_column_of_too_many_categories_is_refused(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["1"], "title": ["A"], "tags": [[f"t{i}" for i in range(5_001)]]})
    pq.write_table(table, tmp_path / "i.parquet")
    settings = config(items={"columns": {"categories": "tags"}})
    message = fault(tmp_path, log(f"a,1,{NOON}"), settings, items=tmp_path / "i.parquet")
    assert "5,001 different categories" in message
    assert "data.items.columns.categories must name a column with fewer" in message
