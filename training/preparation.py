"""The work of `training.events.prepare`: staging, cleaning, settling and writing, in DuckDB through Ibis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import ibis

from training import cells, cleaning
from training.data_config import DataConfig
from training.data_report import DataReport, FileAccount
from training.duckdb_session import duckdb_in
from training.errors import TrainingError
from training.quarantine import Quarantine
from training.source_files import SourceTable, open_source

_CLOCK_SKEW_S = 86_400


def write_prepared(
    data: DataConfig,
    new: Path,
    files: Mapping[str, Path | None],
    digests: dict[str, str],
    excluded_users: frozenset[str],
    fingerprint: Callable[[Collection[str]], str],
) -> DataReport:
    """Fills the empty folder `new`; its layout is in `training.events`.

    Args:
        data: how the files are read and what is kept.
        new: where to.
        files: the input under "events", "items" and "users"; events are never None.
        digests: sha256 of each file that there is.
        excluded_users: forgotten users, in NFC.
        fingerprint: sha256 of the input without these users.

    Raises:
        TrainingError: the input cannot be used.
    """
    events = files["events"]
    assert events is not None
    with duckdb_in(new / "work", data.memory_limit_mb) as connection:
        run = _Run(connection, data, new, digests, excluded_users)
        return run.write(events, files["items"], files["users"], fingerprint)


def write_items(
    data: DataConfig, new: Path, items: Path, digest: str, excluded_users: frozenset[str]
) -> FileAccount:
    """Cleans an items file that comes by itself, as `write_prepared` does one that comes with events.

    Fills the empty folder `new` with items.parquet and quarantine.csv, as in `training.events`. What a
    rejected row says of one of the `excluded_users` is not kept.

    Raises:
        TrainingError: the file cannot be used, or nothing of it is kept.
    """
    with duckdb_in(new / "work", data.memory_limit_mb) as connection:
        return _Run(connection, data, new, {"items": digest}, excluded_users).write_items(items)


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

    def write(
        self,
        events: Path,
        items: Path | None,
        users: Path | None,
        fingerprint: Callable[[Collection[str]], str],
    ) -> DataReport:
        sources = {
            kind: self._open(kind, path)
            for kind, path in (("events", events), ("items", items), ("users", users))
            if path is not None
        }  # all are opened, and their columns checked, before the long work starts
        accounts: dict[str, FileAccount] = {}
        catalogue = users_kept = None
        if "items" in sources:
            split = cleaning.split_items(self._connection, sources["items"], self._data.items)
            catalogue, _, accounts["items"] = self._settle("items", sources["items"], split)
        if "users" in sources:
            split = cleaning.split_users(
                self._connection, sources["users"], self._data.users, excluded_users=self._excluded_table
            )
            users_kept, _, accounts["users"] = self._settle("users", sources["users"], split)

        source, columns = sources["events"], self._data.events.columns
        form = cells.time_format(
            source, columns.time, self._data.events.time_format, "data.events.time_format"
        )
        if form is None:
            raise TrainingError(
                f"{source.file}, {source.header_line}: the time column {columns.time!r} is empty in every row"
            )
        split = cleaning.split_events(
            self._connection, source, self._data,
            time_format=form,
            latest_time=_latest_time(self._data),
            known_items=catalogue if self._data.unknown_items == "drop" else None,
            excluded_users=self._excluded_table,
        )  # fmt: skip
        kept, exposures, accounts["events"] = self._settle("events", source, split)
        catalogue = _with_items_of(kept, exposures, catalogue)
        kept.order_by(["user_id", "time", "item_id", "type"]).to_parquet(self._new / "events.parquet")
        if exposures is not None and accounts["events"].exposures:
            exposures.order_by(["user_id", "time", "item_id"]).to_parquet(self._new / "exposures.parquet")
        catalogue.order_by("item_id").to_parquet(self._new / "items.parquet")
        if users_kept is not None:
            users_kept.order_by("user_id").to_parquet(self._new / "users.parquet")
        self._quarantine.write(self._new / "quarantine.csv")
        numbers = kept.agg(
            users=kept.user_id.nunique(), first_time=kept.time.min(), last_time=kept.time.max()
        ).to_pyarrow().to_pylist()[0]  # fmt: skip
        events_kept, items_kept = accounts["events"].rows_kept, catalogue.count().to_pyarrow().as_py()
        # Of one input more is kept on a later day if it has events in the future.
        kept_now = [
            fingerprint(self._forgotten_in(source)), events_kept, accounts["events"].exposures, items_kept,
            numbers["last_time"],
        ]  # fmt: skip
        report = DataReport(
            name=self._data.name, fingerprint=sha256(json.dumps(kept_now).encode()).hexdigest(),
            inputs=fingerprint(()), request=fingerprint(self._excluded),
            events=events_kept, items=items_kept, **numbers,
            time_format=form, events_file=accounts["events"],
            items_file=accounts.get("items"), users_file=accounts.get("users"),
        )  # fmt: skip
        report.save(self._new / "report.json")
        return report

    def write_items(self, items: Path) -> FileAccount:
        source = self._open("items", items)
        split = cleaning.split_items(self._connection, source, self._data.items)
        kept, _, account = self._settle("items", source, split)
        kept.order_by("item_id").to_parquet(self._new / "items.parquet")
        self._quarantine.write(self._new / "quarantine.csv")
        return account

    def _open(self, kind: str, path: Path) -> SourceTable:
        table = getattr(self._data, kind)
        folder = self._new / "work" / kind
        folder.mkdir(parents=True)
        source = open_source(self._connection, path, table, folder=folder, private=self._excluded)
        for field, names in table.columns:
            for name in _names(names):
                source.require(name, f"data.{kind}.columns.{field}")
        return source

    def _forgotten_in(self, events: SourceTable) -> list[str]:
        user_id = cells.identifier(events, self._data.events.columns.user_id)
        found = events.table.select(user_id=user_id).semi_join(self._excluded_table, "user_id").distinct()
        return list(found.user_id.to_pyarrow().to_pylist())

    def _settle(
        self, kind: str, source: SourceTable, split: cleaning.Split
    ) -> tuple[ibis.Table, ibis.Table | None, FileAccount]:
        """Kept rows, exposures and the account of all; raises `TrainingError` if nothing is kept."""
        kept = self._connection.create_table(f"kept_{kind}", split.kept)
        exposures = split.exposures
        if exposures is not None:
            exposures = self._connection.create_table(f"exposures_of_{kind}", exposures)
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
            exposures=0 if exposures is None else exposures.count().to_pyarrow().as_py(),
        )
        accounted = account.rows_kept + account.exposures + sum(account.rows_dropped.values())
        assert account.rows_read == accounted, account
        if account.rows_kept == 0:
            raise TrainingError(_nothing_kept(source, account, counts, self._data))
        self._quarantine.add(source, dropped)
        return kept, exposures, account


def _names(columns: str | dict[str, str] | tuple[str, ...] | None) -> Iterable[str]:
    """The columns that one key of a table of columns names."""
    if columns is None:
        return ()
    if isinstance(columns, dict):
        return columns.values()
    return (columns,) if isinstance(columns, str) else columns


def _with_items_of(
    events: ibis.Table, exposures: ibis.Table | None, catalogue: ibis.Table | None
) -> ibis.Table:
    """The catalogue and, with their id as title, those items of events and exposures that it lacks."""
    lone = events.select("item_id")
    if exposures is not None:
        lone = lone.union(exposures.select("item_id"))
    lone = lone.distinct()
    lone = lone.mutate(
        title=lone.item_id,
        categories=ibis.literal([], "array<string>"),
        text=lone.item_id,
        published=ibis.null("int64"),
    )
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
