"""Preparing a log: vectors of items that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training.preparing import NOON, config, fault, log, quarantine, rows, run

EVENTS = log(f"a,1,{NOON}")


def vectors(cells: list[str]) -> str:
    lines = [f'{number},T,"{cell}"' for number, cell in enumerate(cells, start=1)]
    return "\n".join(["item_id,title,embedding:image", *lines]) + "\n"


def of_parquet(folder: Path, column: pa.Array) -> Path:
    ids = [str(number) for number in range(1, len(column) + 1)]
    pq.write_table(pa.table({"item_id": ids, "title": ids, "embedding:image": column}), folder / "i.parquet")
    return folder / "i.parquet"


def test_vectors_of_a_csv_file_are_numbers_with_spaces_between_or_a_json_list(tmp_path: Path) -> None:
    items = vectors(["0.5 -1  2e0", "[1, 2.5,3]", " [1,2,3] ", "", " ", "[ ]"])
    done = run(tmp_path, EVENTS, items=items)
    assert [row["embedding:image"] for row in rows(done, "items")] == [
        [0.5, -1.0, 2.0],
        [1.0, 2.5, 3.0],
        [1.0, 2.0, 3.0],
        None,
        None,
        None,
    ]
    kind = pq.read_schema(done.folder / "items.parquet").field("embedding:image").type
    assert kind.value_type == pa.float32()
    assert quarantine(done) == []


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.int16()), pa.list_(pa.float32(), 2)]
)
def test_vectors_of_a_parquet_file_are_lists_of_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    items = of_parquet(tmp_path, pa.array([[1, 2], None, [3, 4]], kind))
    done = run(tmp_path, EVENTS, items=items)
    assert [row["embedding:image"] for row in rows(done, "items")] == [[1.0, 2.0], None, [3.0, 4.0]]


@pytest.mark.parametrize("cell", ["1", "1 2 3", "1 two", "1 nan", "1 inf", "1 1e39", "1,2", "[1 2]", "[1, 2"])
def test_a_wrong_vector_puts_its_row_into_the_quarantine_with_the_column_and_what_would_be_right(
    tmp_path: Path, cell: str
) -> None:
    done = run(tmp_path, EVENTS, items=vectors(["1 2", cell, "3 4"]))
    assert [row["item_id"] for row in rows(done, "items")] == ["1", "3"]
    assert quarantine(done) == [(3, "embedding:image is not a list of 2 finite numbers")]


@pytest.mark.parametrize("odd", [[1.0, None], [1.0, float("nan")], [1.0, 1e39], [1.0]])
def test_a_wrong_list_of_a_parquet_file_is_no_better(tmp_path: Path, odd: list[Any]) -> None:
    column = pa.array([[1.0, 2.0], odd, [3.0, 4.0]], pa.list_(pa.float64()))
    done = run(tmp_path, EVENTS, items=of_parquet(tmp_path, column))
    assert quarantine(done) == [(2, "embedding:image is not a list of 2 finite numbers")]


def test_the_width_is_that_of_most_rows_and_not_of_the_first(tmp_path: Path) -> None:
    done = run(tmp_path, log(f"a,2,{NOON}"), items=vectors(["1", "1 2", "3 4"]))
    assert quarantine(done) == [(2, "embedding:image is not a list of 2 finite numbers")]


def test_a_column_without_one_good_vector_is_bad_input(tmp_path: Path) -> None:
    message = fault(tmp_path, EVENTS, items=vectors(["one two", "three"]))
    assert "items.csv, line 2" in message
    assert "embedding:image is not a list of finite numbers" in message


@pytest.mark.parametrize("name", ["", "Image", "my image", "x" * 33])
def test_a_column_of_vectors_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    message = fault(tmp_path, EVENTS, items=f"item_id,title,embedding:{name}\n1,A,1 2\n")
    for word in ["items.csv, line 1", f"'embedding:{name}'", "1 to 32 of a-z"]:
        assert word in message


def test_a_column_of_vectors_that_holds_lists_of_words_is_bad_input(tmp_path: Path) -> None:
    message = fault(tmp_path, EVENTS, items=of_parquet(tmp_path, pa.array([["one", "two"]])))
    for word in ["i.parquet", "'embedding:image'", "lists of numbers"]:
        assert word in message


def test_an_item_that_only_events_name_has_no_vector(tmp_path: Path) -> None:
    settings = config(unknown_items="keep")
    done = run(tmp_path, log(f"a,1,{NOON}", f"a,9,{NOON}"), settings, items=vectors(["1 2"]))
    assert [row["embedding:image"] for row in rows(done, "items")] == [[1.0, 2.0], None]
