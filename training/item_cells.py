"""Ibis expressions that turn the cells of an items file into titles, categories, texts and vectors."""

from __future__ import annotations

import re
from functools import reduce

import ibis
import ibis.expr.types as ir

from training import cells
from training.data_config import VECTOR_PREFIX, ItemsConfig
from training.errors import TrainingError
from training.source_files import SourceTable

_VECTOR_NAME = re.compile(r"[a-z0-9_]{1,32}")
_EMPTY_LIST = r"^\[\s*\]$"
_UNSET_S = 10_000
"""Times closer to 1970 than this many seconds are unset clocks, or bare years read as seconds."""


def title(source: SourceTable, config: ItemsConfig, item_id: ir.StringValue) -> ir.StringValue:
    """Titles with their year; the id where there is none."""
    if config.columns.title is None:
        return item_id
    words = cells.nfc_normalize(cells.text(source, config.columns.title)).strip()
    if config.columns.year is not None:
        year = ibis.literal(" (") + cells.text(source, config.columns.year).strip() + ")"
        shown = (words != "") & (year != " ()") & ~words.endswith(year)
        words = ibis.ifelse(shown.fill_null(False), words + year, words)
    return words.nullif("").coalesce(item_id)


def categories(source: SourceTable, config: ItemsConfig) -> ir.ArrayValue:
    """Categories, list<string>, sorted, without copies; empty where there are none."""
    if config.columns.categories is None:
        return ibis.literal([], "array<string>")
    column = source.table[config.columns.categories]
    if column.type().is_array():
        parts = column.cast("array<string>")
    else:
        parts = cells.text(source, config.columns.categories).split(config.category_separator)
    none = ["", *config.no_categories]
    parts = parts.map(lambda part: cells.nfc_normalize(part).strip())
    parts = parts.filter(lambda part: part.notnull() & part.notin(none))
    return parts.unique().sort().fill_null(ibis.literal([], "array<string>"))


def reading(
    source: SourceTable, config: ItemsConfig, title: ir.StringValue, categories: ir.ArrayValue
) -> ir.StringValue:
    """What a language model reads: title, categories and further text columns, with ". " between them.

    Empty ones are left out.
    """
    further = [cells.nfc_normalize(cells.text(source, name)).strip() for name in config.columns.text]
    parts = [ibis.literal("") + categories.join(", "), *further]
    return reduce(lambda text, part: text + _behind(part), parts, title)


def _behind(part: ir.StringValue) -> ir.StringValue:
    return ibis.ifelse(part.fill_null("") == "", "", ibis.literal(". ") + part)


def published(source: SourceTable, config: ItemsConfig) -> ir.IntegerValue:
    """Unix seconds, int64; null if empty, unreadable or unset.

    Raises `TrainingError` if the column has times, but none that can be read.
    """
    column = config.columns.published
    if column is None:
        return ibis.null("int64")
    form = cells.time_format(source, column, config.time_format, "data.items.time_format")
    if form is None:
        return ibis.null("int64")
    time = cells.time(source, column, form)
    return ibis.ifelse(time.abs() < _UNSET_S, ibis.null("int64"), time)


def vector_columns(source: SourceTable) -> tuple[str, ...]:
    """The columns named `embedding:<name>`, in the file's order.

    Raises `TrainingError` for a name that is not 1 to 32 of a-z, 0-9 and _.
    """
    columns = tuple(name for name in source.columns if name.startswith(VECTOR_PREFIX))
    for column in columns:
        if not _VECTOR_NAME.fullmatch(column.removeprefix(VECTOR_PREFIX)):
            raise TrainingError(
                f"{source.file}, {source.header_line}: column {column!r} needs a name of 1 to 32 of a-z, 0-9 "
                f"and _ behind {VECTOR_PREFIX!r}"
            )
    return columns


def vector(source: SourceTable, column: str) -> ir.ArrayValue:
    """Vectors, list<float32>; null if empty. What is no finite number in one is null.

    Raises `TrainingError` for a column that holds neither text nor lists of numbers.
    """
    numbers = source.table[column]
    kind = numbers.type()
    if kind.is_array() and not kind.value_type.is_numeric():
        raise TrainingError(
            f"{source.file}: column {column!r} is of type {str(kind)!r}, where lists of numbers are needed"
        )
    if not kind.is_array():
        words = cells.text(source, column).strip()
        words = words.re_replace(_EMPTY_LIST, "").nullif("")
        is_json = words.startswith("[") & words.endswith("]")
        numbers = ibis.ifelse(is_json, words.substr(1, words.length() - 2).split(","), words.re_split(r"\s+"))
    numbers = numbers.map(lambda number: _finite(number.try_cast("float32")))
    return ibis.ifelse(numbers.length() > 0, numbers, ibis.null("array<float32>"))


def _finite(number: ir.FloatingValue) -> ir.FloatingValue:
    return ibis.ifelse(number.isnan() | number.isinf(), ibis.null("float32"), number)
