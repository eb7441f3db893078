"""Which rows of a file are kept, and for what reason each of the others is dropped.

Every function splits the rows of one `SourceTable` into kept ones, a table with the columns of the prepared
file, and dropped ones, a table of `line` and `reason`; of an events file, the exposures among its rows make a
third table. A row is dropped for the first reason that holds for it, in the order in which the reasons stand
here; every row is in exactly one of the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ibis
import pyarrow as pa

from features.schema import MAX_ID_BYTES
from training import cells, item_cells
from training.data_config import MAX_CATEGORIES, DataConfig, ItemsConfig, UsersConfig
from training.errors import TrainingError
from training.source_files import LINE, SourceTable

FORGOTTEN = "forgotten user"
TOO_FEW_EVENTS = "user has too few events"
_Reasons = list[tuple[ibis.expr.types.BooleanValue, str]]


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of one file, split."""

    kept: ibis.Table
    dropped: ibis.Table
    exposures: ibis.Table | None = None
    """Rows of the events file that are kept as exposures; None if the configuration knows of none."""


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
    """Kept: user_id, item_id, time int64 (unix s), type uint8, weight float32, surface string, unsorted.
    Exposures: user_id, item_id, time, surface.

    `known_items` and `excluded_users` have one column, the id; without `known_items` every item is known.
    Of several events with the same user, item, type and time, the one on the first line is kept; of several
    exposures, that with the same user, item and time. A user is not kept for exposures alone, however many.
    """
    columns = config.events.columns
    rows = source.table.select(
        line=source.table[LINE],
        user_id=cells.identifier(source, columns.user_id),
        item_id=cells.identifier(source, columns.item_id),
        time=cells.time(source, columns.time, time_format),
        type=cells.event_type(source, columns.type, config.events),
        weight=cells.weight(source, columns.weight, config.events.default_weight),
        surface=cells.surface(source, columns.surface),
        shown=cells.is_exposure(source, columns.type, config.events),
    )
    # A word for exposures may be the name of a type, too: the configuration has the last word.
    rows = rows.mutate(type=ibis.ifelse(rows.shown, ibis.null("uint8"), rows.type))
    reasons: _Reasons = [
        (rows.user_id.isin(excluded_users.user_id), FORGOTTEN),
        *_bad_id(rows.user_id, "user"),
        *_bad_id(rows.item_id, "item"),
        (rows.time.isnull(), "unreadable time"),
        (~rows.time.between(config.events.earliest_time(), latest_time), "time out of range"),
        (rows.type.isnull() & ~rows.shown, "unknown event type"),
        (rows.weight.isnull() & ~rows.shown, "weight is not a finite number"),
    ]
    if known_items is not None:
        reasons.append((~rows.item_id.isin(known_items.item_id), "item is not in the items file"))
    judged = connection.create_table("judged_events", rows.mutate(reason=_first(reasons)))
    copy = ibis.ifelse(judged.shown, "duplicate exposure", "duplicate event")
    distinct = _without_copies(
        connection, "distinct_events", judged, ["user_id", "item_id", "type", "time"], copy
    )
    good = distinct.filter(distinct.reason.isnull())
    counts = good.filter(~good.shown).group_by("user_id").agg(events=lambda events: events.count())
    active = connection.create_table(
        "active_users", counts.filter(counts.events >= config.min_events_per_user)
    )
    kept = good.semi_join(active, "user_id")
    inactive = good.anti_join(active, "user_id").select("line", reason=ibis.literal(TOO_FEW_EVENTS))
    exposures = kept.filter(kept.shown).select("user_id", "item_id", "time", "surface")
    return Split(
        kept.filter(~kept.shown).drop("line", "reason", "shown"),
        _dropped(judged).union(_dropped(distinct), inactive),
        exposures if config.events.exposures else None,
    )


def split_items(connection: Any, source: SourceTable, config: ItemsConfig) -> Split:
    """Kept: item_id, title, categories list<string> (sorted, without copies), text, published int64 (unix s),
    then the file's other columns, those of vectors as list<float32>.

    An empty title becomes the id. A further column whose name is taken gets `_in_file` behind it. The width
    of a column of vectors is that of most of its rows.

    Raises `TrainingError` for a column that cannot hold what it should, or has too many categories.
    """
    columns = config.columns
    vectors = item_cells.vector_columns(source)
    named = {
        columns.item_id, columns.title, columns.categories, columns.year, columns.published,
        *columns.text, *vectors,
    }  # fmt: skip
    taken = {"item_id", "title", "categories", "text", "published", "line", "reason"}
    further = {
        f"{name}_in_file" if name.casefold() in taken else name: source.table[name]
        for name in source.columns
        if name not in named
    }
    item_id = cells.identifier(source, columns.item_id)
    title, categories = item_cells.title(source, config, item_id), item_cells.categories(source, config)
    rows = connection.create_table(
        "read_items",
        source.table.select(
            line=source.table[LINE],
            item_id=item_id,
            title=title,
            categories=categories,
            text=item_cells.reading(source, config, title, categories),
            published=item_cells.published(source, config),
            **further,
            **{name: item_cells.vector(source, name) for name in vectors},
        ),
    )
    reasons = _bad_id(rows.item_id, "item") + [_bad_vector(rows, name) for name in vectors]
    judged = connection.create_table("judged_items", rows.mutate(reason=_first(reasons)))
    distinct = _without_copies(connection, "distinct_items", judged, ["item_id"], "duplicate item")
    kept = distinct.filter(distinct.reason.isnull()).drop("line", "reason")
    if columns.categories is not None:
        _refuse_too_many_categories(kept, source, config)
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


def _refuse_too_many_categories(kept: ibis.Table, source: SourceTable, config: ItemsConfig) -> None:
    """With a wrong separator every cell is one, and the model's features would not fit in memory."""
    names = kept.select(category=kept.categories.unnest()).distinct()
    found = names.count().to_pyarrow().as_py()
    if found <= MAX_CATEGORIES:
        return
    # The longest shows best what a wrong separator has left together.
    longest = names.order_by([ibis.desc(names.category.length()), "category"]).limit(1)
    example = longest.to_pyarrow().to_pylist()[0]["category"]
    raise TrainingError(
        f"{source.file}: column {config.columns.categories!r} has {found:,} different categories, such as "
        f"{example!r:.100}, and a catalogue may have {MAX_CATEGORIES:,} at most: "
        f"data.items.category_separator, {config.category_separator!r}, must be what stands between those of "
        "one cell, or data.items.columns.categories must name a column with fewer"
    )


def _bad_id(identifier: ibis.expr.types.StringValue, kind: str) -> _Reasons:
    return [
        (identifier.isnull(), f"{kind} id is missing"),
        (cells.byte_length(identifier) > MAX_ID_BYTES, f"{kind} id is longer than {MAX_ID_BYTES} bytes"),
    ]


def _bad_vector(rows: ibis.Table, column: str) -> tuple[ibis.expr.types.BooleanValue, str]:
    faulty = rows[column].length() != rows[column].filter(lambda number: number.notnull()).length()
    widths = rows.filter(~faulty).group_by(width=rows[column].length())
    first = widths.agg(rows=lambda some: some.count(), line=lambda some: some.line.min())
    common = first.order_by([ibis.desc("rows"), "line"]).limit(1).to_pyarrow().to_pylist()
    if not common:
        return faulty, f"{column} is not a list of finite numbers"
    width = common[0]["width"]
    return faulty | (rows[column].length() != width), f"{column} is not a list of {width} finite numbers"


def _first(reasons: _Reasons) -> ibis.expr.types.StringValue:
    return ibis.cases(*reasons, else_=ibis.null("string"))


def _without_copies(
    connection: Any, name: str, judged: ibis.Table, key: list[str], reason: str | ibis.expr.types.StringValue
) -> ibis.Table:
    """The rows of `judged` without a reason, where all but the first of each key now have `reason`."""
    good = judged.filter(judged.reason.isnull())
    nth = ibis.row_number().over(group_by=key, order_by="line")
    return connection.create_table(
        name, good.mutate(reason=ibis.ifelse(nth > 0, reason, ibis.null("string")))
    )


def _dropped(judged: ibis.Table) -> ibis.Table:
    return judged.filter(judged.reason.notnull()).select("line", "reason")
