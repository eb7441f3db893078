"""What became of each row of the input files: saved as report.json, printed as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class FileAccount:
    """One input file: `rows_read == rows_kept + exposures + sum(rows_dropped.values())`, always."""

    file: str
    sha256: str
    rows_read: int
    rows_kept: int
    rows_dropped: dict[str, int]
    """Rows by the reason they were dropped for; no zeros."""
    exposures: int = 0
    """Rows of the events file that are no events, but are kept as exposures."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """The result of preparing data. Times are unix seconds; `users` have events, `items` need not."""

    name: str
    fingerprint: str
    """sha256 of what decides the events: `inputs`, the forgotten users of the log, and how many events and
    items came of them, until when."""
    inputs: str
    """sha256 of the files and the [data] table."""
    request: str
    """sha256 of these and the whole list of forgotten users."""
    events: int
    users: int
    items: int
    first_time: int
    last_time: int
    time_format: str
    events_file: FileAccount
    items_file: FileAccount | None
    users_file: FileAccount | None

    def files(self) -> Iterator[tuple[str, FileAccount]]:
        """(events, items or users, account) of each file that was given."""
        for kind in ("events", "items", "users"):
            account = getattr(self, f"{kind}_file")
            if account is not None:
                yield kind, account

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_report(path: Path) -> DataReport:
    """Reads a saved report.

    Raises `OSError`, `ValueError` or `TypeError` if it is missing or of another layout.
    """
    fields = json.loads(path.read_text(encoding="utf-8"))
    for kind in ("events_file", "items_file", "users_file"):
        if fields.get(kind) is not None:
            fields[kind] = FileAccount(**fields[kind])
    return DataReport(**fields)


def print_report(report: DataReport, folder: Path, console: Console | None = None) -> None:
    """Prints the rows read, kept and dropped of each file, and where the dropped ones are."""
    console = console or Console()
    table = Table(title=f"Data {report.name}", title_justify="left")
    table.add_column("file")
    table.add_column("rows")
    table.add_column("count", justify="right")
    for kind, account in report.files():
        table.add_row(f"{kind}: {Path(account.file).name}", "read", f"{account.rows_read:,}")
        table.add_row("", "kept", f"{account.rows_kept:,}")
        if account.exposures:
            table.add_row("", "kept as exposures", f"{account.exposures:,}")
        for reason, count in sorted(account.rows_dropped.items(), key=lambda entry: -entry[1]):
            table.add_row("", f"dropped: {reason}", f"{count:,}")
        table.add_section()
    console.print(table)
    first, last = (datetime.fromtimestamp(t, UTC).date() for t in (report.first_time, report.last_time))
    console.print(
        f"{report.events:,} events of {report.users:,} users on {report.items:,} items, {first} to {last}, "
        f"in {folder}",
        soft_wrap=True,
        highlight=False,
    )
    if any(account.rows_dropped for _, account in report.files()):
        console.print(f"dropped rows, with line and reason: {folder / 'quarantine.csv'}", soft_wrap=True)
