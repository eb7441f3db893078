"""Which rows of a file are kept, and for what reason each of the others is dropped.

Every function splits the rows of one `SourceTable` into kept ones, a table with the columns of the prepared
file, and dropped ones, a table of `line` and `reason`. A row is dropped for the first reason that holds for
it, in the order in which the reasons stand here; every row is in exactly one of the two tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ibis
import pyarrow as pa

from features.schema import MAX_ID_BYTES
from training import cells
from training.config import DataConfig, ItemsConfig, UsersConfig
from training.source_files import LINE, SourceTable

FORGOTTEN = "forgotten user"
TOO_FEW_EVENTS = "user has too few events"
_Reasons = list[tuple[ibis.expr.types.BooleanValue, str]]


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one file, split."""

    kept: ibis.Table
    dropped: ibis.Table


def split_events(
    connection: Any,
    source: SourceTable,
    config: DataConfig,
    *,
    time_format: cells.ResolvedTimeFormat,
    latest_time: int,
    known_items: ibis.Table | None,
    excluded_users: ibis.Table,
) -> Split:
    """Kept: user_id, item_id, time int64 (unix s), type uint8, weight float32, unsorted.

    `known_items` and `excluded_users` have one column, the id; without `known_items` every item is known.
    Of several events with the same user, item, type and time, the one on the first line is kept.
    """
    columns = config.events.columns
    rows = source.table.select(
        line=source.table[LINE],
        user_id=cells.identifier(source, columns.user_id),
        item_id=cells.identifier(source, columns.item_id),
        time=cells.time(source, columns.time, time_format),
        type=cells.event_type(source, columns.type, config.events),
        weight=cells.weight(source, columns.weight, config.events.default_weight),
    )
    reasons: _Reasons = [
        (rows.user_id.isin(excluded_users.user_id), FORGOTTEN),
        *_bad_id(rows.user_id, "user"),
        *_bad_id(rows.item_id, "item"),
        (rows.time.isnull(), "unreadable time"),
        (~rows.time.between(config.events.earliest_time(), latest_time), "time out of range"),
        (rows.type.isnull(), "unknown event type"),
        (rows.weight.isnull(), "weight is not a finite number"),
    ]
    if known_items is not None:
        reasons.append((~rows.item_id.isin(known_items.item_id), "item is not in the items file"))
    judged = connection.create_table("judged_events", rows.mutate(reason=_first(reasons)))
    distinct = _without_copies(
        connection, "distinct_events", judged, ["user_id", "item_id", "type", "time"], "duplicate event"
    )
    good = distinct.filter(distinct.reason.isnull())
    counts = good.group_by("user_id").agg(events=lambda events: events.count())
    active = connection.create_table(
        "active_users", counts.filter(counts.events >= config.min_events_per_user)
    )
    kept = good.semi_join(active, "user_id").drop("line", "reason")
    inactive = good.anti_join(active, "user_id").select("line", reason=ibis.literal(TOO_FEW_EVENTS))
    return Split(kept, _dropped(judged).union(_dropped(distinct), inactive))


def split_items(connection: Any, source: SourceTable, config: ItemsConfig) -> Split:
    """Kept: item_id, title, categories list<string> (sorted, without copies), then the file's other columns.

    An empty title becomes the id. A further column whose name is taken gets `_in_file` behind it.
    """
    columns = config.columns
    named = {columns.item_id, columns.title, columns.categories, columns.year}
    taken = {"item_id", "title", "categories", "line", "reason"}
    further = {
        f"{name}_in_file" if name.casefold() in taken else name: source.table[name]
        for name in source.columns
        if name not in named
    }
    item_id = cells.identifier(source, columns.item_id)
    rows = source.table.select(
        line=source.table[LINE],
        item_id=item_id,
        title=_title(source, config, item_id),
        categories=_categories(source, config),
        **further,
    )
    judged = connection.create_table(
        "judged_items", rows.mutate(reason=_first(_bad_id(rows.item_id, "item")))
    )
    distinct = _without_copies(connection, "distinct_items", judged, ["item_id"], "duplicate item")
    kept = distinct.filter(distinct.reason.isnull()).drop("line", "reason")
    return Split(kept, _dropped(judged).union(_dropped(distinct)))


def split_users(
    connection: Any, source: SourceTable, config: UsersConfig, *, excluded_users: ibis.Table
) -> Split:
    """Kept: user_id, then one text column for each attribute; an empty cell is null."""
    further = [name for name in source.columns if name != config.columns.user_id]
    attributes = config.columns.attributes or {
        f"{name}_in_file" if name.casefold() in {"user_id", "line", "reason"} else name: name
        for name in further
    }
    rows = source.table.select(
        line=source.table[LINE],
        user_id=cells.identifier(source, config.columns.user_id),
        **{name: cells.text(source, column).nullif("") for name, column in attributes.items()},
    )
    reasons: _Reasons = [
        (rows.user_id.isin(excluded_users.user_id), FORGOTTEN),
        *_bad_id(rows.user_id, "user"),
    ]
    judged = connection.create_table("judged_users", rows.mutate(reason=_first(reasons)))
    distinct = _without_copies(connection, "distinct_users", judged, ["user_id"], "duplicate user")
    kept = distinct.filter(distinct.reason.isnull()).drop("line", "reason")
    return Split(kept, _dropped(judged).union(_dropped(distinct)))


def id_table(column: str, ids: frozenset[str]) -> ibis.Table:
    """A one-column table of ids."""
    return ibis.memtable(pa.table({column: pa.array(sorted(ids), pa.string())}))


def _bad_id(identifier: ibis.expr.types.StringValue, kind: str) -> _Reasons:
    return [
        (identifier.isnull(), f"{kind} id is missing"),
        (cells.byte_length(identifier) > MAX_ID_BYTES, f"{kind} id is longer than {MAX_ID_BYTES} bytes"),
    ]


def _first(reasons: _Reasons) -> ibis.expr.types.StringValue:
    return ibis.cases(*reasons, else_=ibis.null("string"))


def _without_copies(
    connection: Any, name: str, judged: ibis.Table, key: list[str], reason: str
) -> ibis.Table:
    """The rows of `judged` without a reason, where all but the first of each key now have `reason`."""
    good = judged.filter(judged.reason.isnull())
    nth = ibis.row_number().over(group_by=key, order_by="line")
    return connection.create_table(
        name, good.mutate(reason=ibis.ifelse(nth > 0, reason, ibis.null("string")))
    )


def _dropped(judged: ibis.Table) -> ibis.Table:
    return judged.filter(judged.reason.notnull()).select("line", "reason")


def _title(
    source: SourceTable, config: ItemsConfig, item_id: ibis.expr.types.StringValue
) -> ibis.expr.types.StringValue:
    if config.columns.title is None:
        return item_id
    title = cells.nfc_normalize(cells.text(source, config.columns.title)).strip()
    if config.columns.year is not None:
        year = ibis.literal(" (") + cells.text(source, config.columns.year).strip() + ")"
        shown = (title != "") & (year != " ()") & ~title.endswith(year)
        title = ibis.ifelse(shown.fill_null(False), title + year, title)
    return title.nullif("").coalesce(item_id)


def _categories(source: SourceTable, config: ItemsConfig) -> ibis.expr.types.ArrayValue:
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
