"""Preparing a behaviour log: clean, de-duplicate, sort by time, normalise, and account for every row.

`prepare` turns events, items and users files into one folder, `<state>/data/<name>/`:

    events.parquet    user_id string, item_id string, time int64 (unix s), type uint8 (`EventType`),
                      weight float32; sorted by user_id, time, item_id, type
    items.parquet     item_id string, title string, categories list<string>, the items file's other columns;
                      sorted by item_id
    users.parquet     user_id string and one string column for each attribute; only with a users file
    report.json       `DataReport`
    quarantine.csv    file, line, reason and row of every row that was dropped, sorted by file and line

The folder is written under another name and renamed, so it is whole or not there. Preparing again is skipped
while the inputs, the [data] table and the forgotten users are the same. The work is done by DuckDB through
Ibis within `data.memory_limit_mb`, so the log may be larger than memory. The rows of forgotten users are
counted, but nothing of them is written down.
"""

from __future__ import annotations

import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import ibis

from training import cells, cleaning
from training.config import Config, DataConfig
from training.data_folder import duckdb_in, exclusive, replacing, reusable_report
from training.data_report import DataReport, FileAccount, print_report
from training.errors import TrainingError
from training.movielens import fetch_movielens_100k
from training.quarantine import Quarantine
from training.source_files import SourceTable, open_source

__all__ = ["PreparedData", "prepare", "print_report"]

_LAYOUT = 1
"""Raise it when the same input gives another folder, so that old folders are not reused."""
_CLOCK_SKEW_S = 86_400


@dataclass(frozen=True, slots=True)
class PreparedData:
    """A prepared data folder."""

    folder: Path
    report: DataReport
    fingerprint: str
    reused: bool
    """True: the folder was there already."""


def prepare(
    config: Config,
    *,
    events: Path | None,
    items: Path | None,
    users: Path | None,
    state_dir: Path,
    excluded_users: frozenset[str],
) -> PreparedData:
    """Prepares the files given, or MovieLens-100K if the configuration says so.

    Raises `TrainingError` for input that cannot be used; the folder is then what it was before.
    """
    data = config.data
    events, items, users = _inputs(data, events, items, users, state_dir)
    given = {"events": events, "items": items, "users": users}
    excluded_users = frozenset(unicodedata.normalize("NFC", user) for user in excluded_users)
    digests = {kind: _digest(path) for kind, path in given.items() if path is not None}
    fingerprint = _fingerprint(data, digests, excluded_users)
    folder = state_dir / "data" / data.name
    with exclusive(folder):
        report = reusable_report(folder, fingerprint)
        if report is not None:
            return PreparedData(folder, report, fingerprint, reused=True)
        with replacing(folder) as new, duckdb_in(new / "work", data.memory_limit_mb) as connection:
            run = _Run(connection, data, new, digests, excluded_users)
            report = run.write(events, items, users, fingerprint)
    return PreparedData(folder, report, fingerprint, reused=False)


class _Run:
    """One preparation, into the folder `new`."""

    def __init__(
        self, connection: Any, data: DataConfig, new: Path, digests: dict[str, str], excluded: frozenset[str]
    ) -> None:
        self._connection = connection
        self._data = data
        self._new = new
        self._digests = digests
        self._excluded = excluded
        self._excluded_table = cleaning.id_table("user_id", excluded)
        self._quarantine = Quarantine(connection)

    def write(self, events: Path, items: Path | None, users: Path | None, fingerprint: str) -> DataReport:
        sources = {
            kind: self._open(kind, path)
            for kind, path in (("events", events), ("items", items), ("users", users))
            if path is not None
        }  # all are opened, and their columns checked, before the long work starts
        accounts: dict[str, FileAccount] = {}
        catalogue = users_kept = None
        if "items" in sources:
            split = cleaning.split_items(self._connection, sources["items"], self._data.items)
            catalogue, accounts["items"] = self._settle("items", sources["items"], split)
        if "users" in sources:
            split = cleaning.split_users(
                self._connection, sources["users"], self._data.users, excluded_users=self._excluded_table
            )
            users_kept, accounts["users"] = self._settle("users", sources["users"], split)

        source, columns = sources["events"], self._data.events.columns
        form = cells.time_format(source, columns.time, self._data.events)
        split = cleaning.split_events(
            self._connection, source, self._data,
            time_format=form,
            latest_time=_latest_time(self._data),
            known_items=catalogue if self._data.unknown_items == "drop" else None,
            excluded_users=self._excluded_table,
        )  # fmt: skip
        kept, accounts["events"] = self._settle("events", source, split)
        catalogue = _with_items_of(kept, catalogue)
        kept.order_by(["user_id", "time", "item_id", "type"]).to_parquet(self._new / "events.parquet")
        catalogue.order_by("item_id").to_parquet(self._new / "items.parquet")
        if users_kept is not None:
            users_kept.order_by("user_id").to_parquet(self._new / "users.parquet")
        self._quarantine.write(self._new / "quarantine.csv")
        numbers = kept.agg(
            users=kept.user_id.nunique(), first_time=kept.time.min(), last_time=kept.time.max()
        ).to_pyarrow().to_pylist()[0]  # fmt: skip
        report = DataReport(
            name=self._data.name, fingerprint=fingerprint,
            events=accounts["events"].rows_kept, items=catalogue.count().to_pyarrow().as_py(), **numbers,
            time_format=form, events_file=accounts["events"],
            items_file=accounts.get("items"), users_file=accounts.get("users"),
        )  # fmt: skip
        report.save(self._new / "report.json")
        return report

    def _open(self, kind: str, path: Path) -> SourceTable:
        table = getattr(self._data, kind)
        folder = self._new / "work" / kind
        folder.mkdir(parents=True)
        source = open_source(self._connection, path, table, folder=folder, private=self._excluded)
        for field, names in table.columns:
            for name in names.values() if isinstance(names, dict) else (names,):
                if name is not None:
                    source.require(name, f"data.{kind}.columns.{field}")
        return source

    def _settle(
        self, kind: str, source: SourceTable, split: cleaning.Split
    ) -> tuple[ibis.Table, FileAccount]:
        kept = self._connection.create_table(f"kept_{kind}", split.kept)
        dropped = self._connection.create_table(f"dropped_{kind}", split.dropped)
        counts = (
            dropped.group_by("reason")
            .agg(rows=dropped.count(), line=dropped.line.min())
            .to_pyarrow()
            .to_pylist()
        )
        account = FileAccount(
            file=str(source.file),
            sha256=self._digests[kind],
            rows_read=source.rows_read,
            rows_kept=kept.count().to_pyarrow().as_py(),
            rows_dropped={row["reason"]: row["rows"] for row in counts} | source.rejected,
        )
        assert account.rows_read == account.rows_kept + sum(account.rows_dropped.values()), account
        if account.rows_kept == 0:
            raise TrainingError(_nothing_kept(source, account, counts, self._data))
        self._quarantine.add(source, dropped)
        return kept, account


def _inputs(
    data: DataConfig, events: Path | None, items: Path | None, users: Path | None, state_dir: Path
) -> tuple[Path, Path | None, Path | None]:
    if data.source == "movielens-100k":
        if events or items or users:
            raise TrainingError(
                'files were given, but the configuration says data.source = "movielens-100k"; '
                'use one with data.source = "files", such as training/configs/example-own-data.toml'
            )
        files = fetch_movielens_100k(state_dir / "cache" / "movielens-100k")
        return files.events, files.items, files.users
    if events is None:
        raise TrainingError('data.source is "files", so an events file is needed: --events FILE')
    return events, items, users


def _with_items_of(events: ibis.Table, catalogue: ibis.Table | None) -> ibis.Table:
    """The catalogue and, with their id as title, those items of the events that it lacks."""
    lone = events.select("item_id").distinct()
    lone = lone.mutate(title=lone.item_id, categories=ibis.literal([], "array<string>"))
    if catalogue is None:
        return lone
    lone = lone.anti_join(catalogue, "item_id")
    empty = {name: ibis.null(kind) for name, kind in catalogue.schema().items() if name not in lone.columns}
    return catalogue.union(lone.mutate(**empty).select(catalogue.columns))


def _nothing_kept(
    source: SourceTable, account: FileAccount, counts: list[dict[str, Any]], data: DataConfig
) -> str:
    few = account.rows_dropped.get(cleaning.TOO_FEW_EVENTS, 0)
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in account.rows_dropped.items())
    if few:
        return (
            f"{source.file}: no user has the {data.min_events_per_user} usable events that "
            f"data.min_events_per_user asks for (rows dropped: {reasons})"
        )
    first = min(counts, key=lambda row: row["line"], default=None)
    where = f", line {first['line']} first ({first['reason']})" if first else ""
    return f"{source.file}{where}: none of its {account.rows_read:,} rows can be used: {reasons}"


def _latest_time(data: DataConfig) -> int:
    if data.events.latest is None:
        return int(time.time()) + _CLOCK_SKEW_S
    day = data.events.latest + timedelta(days=1)
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) - 1


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise TrainingError(f"{path} cannot be read: {exc.strerror}") from exc


def _fingerprint(data: DataConfig, digests: dict[str, str], excluded_users: frozenset[str]) -> str:
    digest = sha256(f"layout {_LAYOUT}\n{sorted(digests.items())}\n".encode())
    digest.update(data.model_dump_json(exclude={"memory_limit_mb"}).encode())
    for user in sorted(excluded_users):
        digest.update(f"\n{len(user)} {user}".encode())
    return digest.hexdigest()
