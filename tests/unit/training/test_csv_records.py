"""CSV records know the physical line they start on, whatever is wrong around them."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from training.csv_records import BROKEN_QUOTE, TOO_LONG, records
from training.data_config import FileConfig

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def parse(text: str, **options: str) -> list[tuple[int, list[str] | str, str]]:
    return list(records(io.StringIO(text, newline=""), FileConfig.model_validate(options)))


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=8))
def test_what_a_csv_writer_wrote_is_read_back_with_its_lines(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    starts = []
    for row in rows:
        written = text.getvalue().replace("\r\n", "\n").replace("\r", "\n")
        starts.append(written.count("\n") + 1)
        csv.writer(text, quoting=csv.QUOTE_ALL).writerow(row)
    assert [(line, cells) for line, cells, _ in parse(text.getvalue())] == list(
        zip(starts, rows, strict=True)
    )


def test_a_row_with_line_breaks_in_quotes_has_the_line_it_starts_on() -> None:
    assert [line for line, _, _ in parse('a,b\n1,"x\ny\nz"\n2,w\n')] == [1, 2, 5]


def test_blank_lines_count_as_lines_but_are_no_rows() -> None:
    assert [(line, cells) for line, cells, _ in parse("a\n\n\nb\n")] == [(1, ["a"]), (4, ["b"])]


def test_a_quote_that_is_never_closed_costs_only_its_own_line() -> None:
    rows = parse('a,b\n1,"open\n2,x\n3,y\n')
    assert rows == [
        (1, ["a", "b"], "a,b\n"),
        (2, BROKEN_QUOTE, '1,"open\n'),
        (3, ["2", "x"], "2,x\n"),
        (4, ["3", "y"], "3,y\n"),
    ]


def test_text_behind_a_closing_quote_breaks_only_its_own_line() -> None:
    assert [cells for _, cells, _ in parse('"a"b,c\nd,e\n')] == [BROKEN_QUOTE, ["d", "e"]]


def test_a_cell_that_is_too_long_is_told_from_a_quote_that_is_never_closed() -> None:
    limit = csv.field_size_limit()
    assert [cells for _, cells, _ in parse(f"a,{'x' * limit}\nb,{'x' * (limit + 1)}\nc,y\n")] == [
        ["a", "x" * limit],
        TOO_LONG,
        ["c", "y"],
    ]
    rest = [[str(i), "x" * 100] for i in range(limit // 100)]
    rows = parse('a,"open\n' + "".join(f"{i},{x}\n" for i, x in rest))
    assert [cells for _, cells, _ in rows] == [BROKEN_QUOTE, *rest]


def test_without_quoting_a_quote_is_a_character() -> None:
    assert parse('a\t"b\n', quote="", delimiter="\t") == [(1, ["a", '"b'], 'a\t"b\n')]
