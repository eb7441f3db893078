"""Ibis expressions that turn the cells of a file into ids, times, weights and event types.

Each yields null for what cannot be used; why is decided where rows are dropped. A cell of only white space is
an empty cell.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import ibis
import ibis.expr.datatypes as dt

from features.schema import EventType
from training.data_config import EventsConfig, TimeFormat
from training.errors import TrainingError
from training.source_files import LINE, SourceTable

ResolvedTimeFormat = Literal["seconds", "milliseconds", "iso8601"]

_ISO_8601 = r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?([Zz]|[+-]\d{2}(:?\d{2})?)?)?$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_LARGEST_SECONDS = 1e11  # the year 5138; as milliseconds, 1973
_LARGEST_MILLISECONDS = 1e14
_TIME_SAMPLE = 1_000


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]  # Ibis has no types
def nfc_normalize(text: str) -> str:  # type: ignore[empty-body]  # the body is DuckDB's
    """The NFC form of Unicode, as in `features.schema.stable_hash`."""


@ibis.udf.scalar.builtin(name="strlen")  # type: ignore[untyped-decorator]  # Ibis has no types
def byte_length(text: str) -> int:  # type: ignore[empty-body]  # the body is DuckDB's
    """Length in UTF-8 bytes."""


@ibis.udf.scalar.builtin(  # type: ignore[untyped-decorator]  # Ibis has no types
    name="epoch", signature=((dt.Timestamp(timezone="UTC"),), dt.float64)
)
def unix_seconds(moment: datetime) -> float:  # type: ignore[empty-body]  # the body is DuckDB's
    """Unix seconds with their fraction."""


def text(source: SourceTable, column: str) -> ibis.expr.types.StringValue:
    """A column's cells as text. Whole numbers of a fractional type have no decimal point: "7", not "7.0".

    Raises `TrainingError` for a column of a type that has no plain text, such as a list.
    """
    cells = source.table[column]
    kind = cells.type()
    if kind.is_string():
        return cells
    if kind.is_floating() or kind.is_decimal():
        number = cells.cast("float64")
        whole = (number == number.floor()) & (number.abs() < 2**53)
        return ibis.cases(
            (number.isnan(), ibis.null("string")),  # how pandas writes a missing value
            (whole, ibis.ifelse(whole, number, 0).cast("int64").cast("string")),
            else_=cells.cast("string"),
        )
    if kind.is_integer() or kind.is_boolean() or kind.is_temporal() or kind.is_uuid():
        return cells.cast("string")
    raise TrainingError(
        f"{source.file}: column {column!r} is of type {str(kind)!r}, where text or numbers are needed"
    )


def identifier(source: SourceTable, column: str) -> ibis.expr.types.StringValue:
    """User or item ids in NFC form; null if empty. White space around an id belongs to it."""
    cells = text(source, column)
    return ibis.ifelse(cells.strip() == "", ibis.null("string"), nfc_normalize(cells))


def time_format(source: SourceTable, column: str, wanted: TimeFormat, key: str) -> ResolvedTimeFormat | None:
    """The configured format of a time column, or the one that its first times have; None if it is empty in
    every row. `key` is where the format is configured.

    Raises `TrainingError` if not one of the first times can be read in it.
    """
    if source.table[column].type().is_temporal():
        return "iso8601"
    cells = text(source, column)
    sample = (
        source.table.select(line=source.table[LINE], cell=cells.strip())
        .filter(lambda rows: rows.cell.length() > 0)
        .order_by("line")
        .limit(_TIME_SAMPLE)
    )
    rows = sample.mutate(number=_number(sample.cell), iso=_iso_time(sample.cell)).to_pyarrow().to_pylist()
    if not rows:
        return None
    numbers = [abs(row["number"]) for row in rows if row["number"] is not None]
    votes: dict[ResolvedTimeFormat, int] = {
        "seconds": sum(number < _LARGEST_SECONDS for number in numbers),
        "milliseconds": sum(_LARGEST_SECONDS <= number < _LARGEST_MILLISECONDS for number in numbers),
        "iso8601": sum(row["iso"] is not None for row in rows),
    }
    if wanted == "auto":
        most = max(votes, key=lambda form: votes[form])
        if votes[most]:
            return most
    elif votes["iso8601"] if wanted == "iso8601" else numbers:
        return wanted
    expected = {
        "auto": "Unix seconds, Unix milliseconds or an ISO 8601 time such as 2024-05-31T18:04:05Z",
        "seconds": f"Unix seconds ({key})",
        "milliseconds": f"Unix milliseconds ({key})",
        "iso8601": f"an ISO 8601 time such as 2024-05-31T18:04:05Z ({key})",
    }[wanted]
    first = rows[0]
    raise TrainingError(
        f"{source.file}, line {first['line']}: the time {first['cell'][:80]!r} in column {column!r}, like "
        f"those of the first {len(rows)} rows, is not {expected}"
    )


def time(source: SourceTable, column: str, form: ResolvedTimeFormat) -> ibis.expr.types.IntegerValue:
    """Unix seconds, rounded down, int64; null if empty or unreadable. ISO times without an offset are UTC."""
    cells = source.table[column]
    if cells.type().is_temporal():
        seconds = unix_seconds(cells.cast(dt.Timestamp(timezone="UTC")))
    elif form == "iso8601":
        seconds = _iso_time(text(source, column).strip())
    else:
        seconds = _number(text(source, column).strip()) / (1 if form == "seconds" else 1000)
    return ibis.ifelse(seconds.abs() < 2**53, seconds, ibis.null("float64")).floor().cast("int64")


def weight(source: SourceTable, column: str | None, default: float) -> ibis.expr.types.FloatingValue:
    """Weights, float32; the default for an empty cell, null for what is not a finite number."""
    if column is None:
        return ibis.literal(default, "float32")
    cells = source.table[column]
    if cells.type().is_numeric():
        number, empty = cells.cast("float64"), cells.isnull()
    else:
        words = text(source, column).strip()
        number, empty = _number(words), words.fill_null("") == ""
    return ibis.cases(
        (empty, ibis.literal(default, "float32")),
        (number.isnan() | (number.abs() > 3.4028234e38), ibis.null("float32")),  # float32's largest
        else_=number.cast("float32"),
    )


def event_type(source: SourceTable, column: str | None, config: EventsConfig) -> ibis.expr.types.IntegerValue:
    """Numbers of `EventType`, uint8; the default for an empty cell, null for an unknown word."""
    if column is None:
        return ibis.literal(int(config.default_type), "uint8")
    words = text(source, column).strip()
    configured = [(words == word, ibis.literal(int(kind), "uint8")) for word, kind in config.types.items()]
    names = [
        (words.upper() == name, ibis.literal(int(kind), "uint8"))
        for name, kind in EventType.__members__.items()
    ]
    empty = (words.fill_null("") == "", ibis.literal(int(config.default_type), "uint8"))
    return ibis.cases(empty, *configured, *names, else_=ibis.null("uint8"))


def is_exposure(
    source: SourceTable, column: str | None, config: EventsConfig
) -> ibis.expr.types.BooleanValue:
    """Whether a row tells that an item was shown, and no more; never null."""
    if column is None or not config.exposures:
        return ibis.literal(False)
    return text(source, column).strip().isin(config.exposures).fill_null(False)


def surface(source: SourceTable, column: str | None) -> ibis.expr.types.StringValue:
    """Surfaces in NFC form; null if empty."""
    if column is None:
        return ibis.null("string")
    return nfc_normalize(text(source, column)).strip().nullif("")


def _number(cells: ibis.expr.types.StringValue) -> ibis.expr.types.FloatingValue:
    return ibis.ifelse(cells.re_search(_NUMBER), cells.try_cast("float64"), ibis.null("float64"))


def _iso_time(cells: ibis.expr.types.StringValue) -> ibis.expr.types.FloatingValue:
    moment = cells.replace(",", ".").try_cast(dt.Timestamp(timezone="UTC"))
    return ibis.ifelse(cells.re_search(_ISO_8601), unix_seconds(moment), ibis.null("float64"))
