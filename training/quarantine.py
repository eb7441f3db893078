"""The rows that were dropped, each with its file, its line and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import ibis.expr.datatypes as dt

from training.cleaning import FORGOTTEN
from training.source_files import LINE, SourceTable


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]  # Ibis has no types
def to_json(value) -> dt.json:  # type: ignore[no-untyped-def]  # DuckDB's; untyped, it takes any value
    """A value as JSON text."""


class Quarantine:
    """Collects dropped rows and writes them to a CSV file: file, line, reason, row; sorted by file and line.

    `row` is the row as JSON, or its text as it was read if it could not be split into columns. It is empty
    for forgotten users, of whom nothing is kept.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._parts: list[ibis.Table] = []

    def add(self, source: SourceTable, dropped: ibis.Table) -> None:
        """`dropped`: line int64, reason string."""
        rows = source.table.select(
            line=source.table[LINE],
            row=to_json(ibis.struct({name: source.table[name] for name in source.columns})).cast("string"),
        )
        file = ibis.literal(str(source.file))
        joined = dropped.join(rows, "line")
        row = ibis.ifelse(joined.reason == FORGOTTEN, "", joined.row)
        self._parts.append(joined.select(file=file, line=joined.line, reason=joined.reason, row=row))
        if source.rejects is not None:
            rejects = self._connection.read_parquet(source.rejects)
            self._parts.append(rejects.select(file=file, line="line", reason="reason", row="raw"))

    def write(self, path: Path) -> None:
        """Writes what was collected."""
        ibis.union(*self._parts).order_by(["file", "line"]).to_csv(path)
