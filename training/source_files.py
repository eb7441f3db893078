"""Reading an input file, CSV or Parquet, as a table whose rows know their line.

CSV is parsed with the standard library (`csv_records`), because the line of a bad row must be exact, and
DuckDB's parallel reader does not tell the line of good ones, which may turn out bad later. The parsed cells
go to a Parquet file of text columns in batches, so memory does not grow with the file. In a Parquet file, the
line is the row's number, counted from 1.

A record that cannot be split into the header's columns is *rejected*: it is kept as it was read, with the
reason.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from training.csv_records import records
from training.data_config import FileConfig
from training.errors import TrainingError

LINE = "riptide:line"
"""Name of the column that holds the line of each row, int64."""

_BATCH_ROWS = 20_000
_PARQUET_MAGIC = b"PAR1"
_REJECT_SCHEMA = pa.schema([("line", pa.int64()), ("reason", pa.string()), ("raw", pa.string())])


@dataclass(frozen=True, slots=True)
class SourceTable:
    """One input file, ready to be queried."""

    file: Path
    table: ibis.Table
    """The file's columns (all text if it is CSV) and `LINE`."""
    columns: tuple[str, ...]
    """The file's columns, without `LINE`."""
    header_line: str
    """Where the column names stand, for messages: "line 1", or "the schema" of a Parquet file."""
    rows_read: int
    """All rows, rejected ones included."""
    rejects: Path | None
    """Parquet file (line int64, reason string, raw string) of the rows that are not split into columns."""
    rejected: dict[str, int]
    """Rejected rows by reason."""

    def require(self, column: str, key: str) -> None:
        """Raises `TrainingError` if the file lacks the column, which the configuration names under `key`."""
        if column not in self.columns:
            raise TrainingError(
                f"{self.file}, {self.header_line}: there is no column {column!r}, which {key} names; "
                f"the columns are {', '.join(map(repr, self.columns[:30]))}"
            )


def open_source(
    connection: Any, file: Path, config: FileConfig, *, folder: Path, private: frozenset[str] = frozenset()
) -> SourceTable:
    """Opens a CSV or Parquet file; what must be written meanwhile goes to `folder`, which must exist.

    `connection` is Ibis' DuckDB connection. The raw text of a rejected row that holds one of the `private`
    cells (ids of forgotten users) is not kept.

    Raises `TrainingError` if the file is missing, empty, neither CSV nor Parquet, or has no rows.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(65536)
    except OSError as exc:
        raise TrainingError(f"{file} cannot be read: {exc.strerror}") from exc
    if not head:
        raise TrainingError(f"{file}, line 1: the file is empty, where a header and rows should be")
    is_parquet = head.startswith(_PARQUET_MAGIC)
    if config.format == "parquet" and not is_parquet:
        raise TrainingError(f"{file} is not a Parquet file, though its format is set to 'parquet'")
    if config.format != "csv" and is_parquet:
        return _open_parquet(connection, file)
    if "\0" in head.decode(config.encoding, errors="ignore"):
        raise TrainingError(f"{file} is neither CSV nor Parquet: it holds binary data (is it compressed?)")
    return _open_csv(connection, file, config, folder, private)


def _open_parquet(connection: Any, file: Path) -> SourceTable:
    try:
        with pq.ParquetFile(file) as parquet:
            columns, rows = tuple(parquet.schema_arrow.names), parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as exc:
        raise TrainingError(f"{file} is not a readable Parquet file: {str(exc).splitlines()[0]}") from exc
    _check_names(file, "the schema", columns)
    if rows == 0:
        raise TrainingError(f"{file} has columns but no rows")
    table = connection.read_parquet(file, file_row_number=True)
    table = table.mutate((table.file_row_number + 1).cast("int64").name(LINE)).drop("file_row_number")
    return SourceTable(file, table, columns, "the schema", rows, None, {})


def _open_csv(
    connection: Any, file: Path, config: FileConfig, folder: Path, private: frozenset[str]
) -> SourceTable:
    encoding = (
        "utf-8-sig" if config.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else config.encoding
    )
    staged, rejects = folder / "staged.parquet", folder / "rejects.parquet"
    try:
        with file.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
            parsed = records(stream, config)
            columns = config.column_names or _header(file, parsed)
            _check_names(file, "line 1", columns)
            with _Staging(staged, rejects, columns, config, private) as staging:
                for line, fields, raw in parsed:
                    staging.add(line, fields, raw)
    except UnicodeDecodeError as exc:
        raise TrainingError(
            f"{file} is not text in {config.encoding}: {exc.reason} at byte {exc.start}"
        ) from exc
    if staging.rows == 0:
        raise TrainingError(f"{file}, line 2: rows should follow the header, but the file ends")
    if staging.rows == sum(staging.rejected.values()):
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in staging.rejected.items())
        raise TrainingError(
            f"{file}, line {staging.first_rejected}: none of the {staging.rows:,} rows could be split into "
            f"{len(columns)} columns: {reasons}"
        )
    return SourceTable(
        file,
        connection.read_parquet(staged),
        columns,
        "line 1",
        staging.rows,
        rejects,
        dict(staging.rejected),
    )


def _header(file: Path, parsed: Iterator[tuple[int, list[str] | str, str]]) -> tuple[str, ...]:
    line, fields, raw = next(parsed, (1, [], ""))
    if not fields or isinstance(fields, str):
        raise TrainingError(f"{file}, line {line}: this should be a header of column names, not {raw[:80]!r}")
    if any(not name.isprintable() for name in fields):  # an undecodable byte is an unprintable surrogate
        raise TrainingError(f"{file}, line {line}: the header is not text in the configured encoding")
    return tuple(name.strip() or f"column_{i}" for i, name in enumerate(fields, start=1))


def _check_names(file: Path, where: str, columns: tuple[str, ...]) -> None:
    folded = Counter(name.casefold() for name in (*columns, LINE, "file_row_number"))
    for name in columns:  # DuckDB's column names ignore case
        if folded[name.casefold()] > 1:
            raise TrainingError(f"{file}, {where}: column {name!r} must be there once, in one spelling")


class _Staging:
    """Writes good rows and rejected ones to a Parquet file each, batch by batch."""

    def __init__(
        self, good: Path, bad: Path, columns: tuple[str, ...], config: FileConfig, private: frozenset[str]
    ) -> None:
        self.rows = 0
        self.rejected: Counter[str] = Counter()
        self.first_rejected = 0
        self._width = len(columns)
        self._config = config
        self._private = private
        schema = pa.schema([(LINE, pa.int64()), *((name, pa.string()) for name in columns)])
        self._good, self._bad = pq.ParquetWriter(good, schema), pq.ParquetWriter(bad, _REJECT_SCHEMA)
        # Row after row in flat lists: a list per row alive would keep the garbage collector busy.
        self._lines: list[int] = []
        self._cells: list[str] = []
        self._raw: list[str] = []
        self._rejects: list[tuple[int, str, str]] = []

    def __enter__(self) -> _Staging:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._good, self._bad:
            if error is None:
                self._flush()

    def add(self, line: int, fields: list[str] | str, raw: str) -> None:
        self.rows += 1
        if isinstance(fields, str):
            self._reject(line, fields, raw)
        elif len(fields) == self._width:
            self._lines.append(line)
            self._cells.extend(fields)
            self._raw.append(raw)
        else:
            self._reject(line, "wrong number of columns", raw)
        if len(self._lines) >= _BATCH_ROWS or len(self._rejects) >= _BATCH_ROWS:
            self._flush()

    def _reject(self, line: int, reason: str, raw: str) -> None:
        self.rejected[reason] += 1
        self.first_rejected = self.first_rejected or line
        text = raw.rstrip("\r\n").encode(errors="surrogateescape").decode(errors="replace")
        if self._private:
            plain = text.replace(self._config.quote, "") if self._config.quote else text
            cells = unicodedata.normalize("NFC", plain).split(self._config.delimiter)
            text = "" if self._private.intersection(cells) else text
        self._rejects.append((line, reason, text))

    def _flush(self) -> None:
        try:
            self._write_batch()
        except UnicodeEncodeError:  # bytes that are not in the encoding: take out the rows that hold them
            lines, cells, raw = self._take_batch()
            for i, text in enumerate(raw):
                if not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text):
                    self._reject(lines[i], f"not text in {self._config.encoding}", text)
                else:
                    self._lines.append(lines[i])
                    self._cells.extend(cells[i * self._width : (i + 1) * self._width])
            self._write_batch()
        self._take_batch()
        if self._rejects:
            columns = list(zip(*self._rejects, strict=True))
            self._bad.write_batch(pa.record_batch(columns, schema=_REJECT_SCHEMA))
        self._rejects = []

    def _take_batch(self) -> tuple[list[int], list[str], list[str]]:
        batch = self._lines, self._cells, self._raw
        self._lines, self._cells, self._raw = [], [], []
        return batch

    def _write_batch(self) -> None:
        if self._lines:
            columns = [pa.array(self._cells[i :: self._width], pa.string()) for i in range(self._width)]
            batch = [pa.array(self._lines, pa.int64()), *columns]
            self._good.write_batch(pa.record_batch(batch, schema=self._good.schema))
