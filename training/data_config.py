"""The `[data]` table of a configuration: files, their columns, and which events are kept."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from features.schema import EventType

VECTOR_PREFIX = "embedding:"
"""Begins the names of the items file's columns of vectors."""

MAX_CATEGORIES = 5_000
"""Distinct categories of a catalogue: each is a column of a dense matrix of items × categories."""

ColumnName = Annotated[str, Field(min_length=1)]
FileFormat = Literal["auto", "csv", "parquet"]
TimeFormat = Literal["auto", "seconds", "milliseconds", "iso8601"]


class Table(BaseModel):
    """A table of a configuration file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileConfig(Table):
    """Which file it is, and how it is read. The CSV options are ignored for Parquet."""

    path: Path | None = None
    """The file; a relative path starts in this configuration's folder. The command line's goes before it."""
    format: FileFormat = "auto"
    """`auto`: Parquet if the file starts with Parquet's magic bytes, else CSV."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """One character; a tab is written as "\\t"."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """One character, or empty if the file has no quoting."""
    encoding: str = "utf-8"
    """Python's name of the text encoding. A byte-order mark is skipped in UTF-8."""
    column_names: tuple[ColumnName, ...] = ()
    """Names of all columns, in order, for a CSV file without a header line. Empty: line 1 is the header."""

    @field_validator("path")
    @classmethod
    def _beside_the_configuration(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        folder: Path | None = (info.context or {}).get("folder")
        return path if path is None or folder is None else folder / path

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError(f"no text encoding is called {encoding!r}") from None
        return encoding


class EventColumns(Table):
    """The column of the events file that holds each field; None: the file has no such column."""

    user_id: ColumnName = "user_id"
    item_id: ColumnName = "item_id"
    time: ColumnName = "time"
    type: ColumnName | None = None
    weight: ColumnName | None = None
    surface: ColumnName | None = None
    """Where it happened, e.g. "home" or "search"."""


class EventsConfig(FileConfig):
    """The events file: who did what with which item, and when."""

    columns: EventColumns = EventColumns()
    time_format: TimeFormat = "auto"
    """`auto` decides once for the whole file, from its first 1,000 times."""
    default_type: EventType = EventType.CLICK
    """Type of an event without a type column, or with an empty cell in it."""
    types: dict[str, EventType] = {}
    """The file's words for event types, e.g. `buy = "PURCHASE"`. The names of `EventType` need no entry."""
    exposures: tuple[ColumnName, ...] = ()
    """The type column's words for "was shown the item and did nothing", e.g. "impression". Such rows are no
    events: they are kept apart, and tell what a user passed over."""
    default_weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Weight of an event without a weight column, or with an empty cell in it."""
    earliest: date = date(1990, 1, 1)
    """Events before this day (UTC) are dropped: such times are unset clocks, not history."""
    latest: date | None = None
    """Events after this day (UTC) are dropped. None: events later than a day from now are."""

    @field_validator("types", "default_type", mode="before")
    @classmethod
    def _event_types_by_name(cls, value: object) -> object:
        if isinstance(value, dict):
            return {word: event_type(name) for word, name in value.items()}
        return event_type(value)

    @model_validator(mode="after")
    def _ordered(self) -> EventsConfig:
        if self.latest is not None and self.latest < self.earliest:
            raise ValueError(f"latest ({self.latest}) must not be before earliest ({self.earliest})")
        return self

    @model_validator(mode="after")
    def _exposures_are_words_of_the_type_column(self) -> EventsConfig:
        if self.exposures and self.columns.type is None:
            raise ValueError("exposures are words of the type column, so columns.type must name it")
        for word in self.exposures:
            if word in self.types:
                raise ValueError(f"{word!r} must not be both in exposures and in types")
        return self

    def earliest_time(self) -> int:
        """Unix seconds of the first moment that is kept."""
        return int(
            datetime(self.earliest.year, self.earliest.month, self.earliest.day, tzinfo=UTC).timestamp()
        )


class ItemColumns(Table):
    """The column of the items file that holds each field; None: the file has no such column."""

    item_id: ColumnName = "item_id"
    title: ColumnName | None = "title"
    categories: ColumnName | None = None
    year: ColumnName | None = None
    """Put behind the title in brackets: "Toy Story" and 1995 are shown as "Toy Story (1995)"."""
    text: tuple[ColumnName, ...] = ()
    """Further columns, such as a description, that a language model reads with the title and categories."""
    published: ColumnName | None = None
    """Since when the item is there to be recommended. A time, as in the events file: a bare year is none."""


class ItemsConfig(FileConfig):
    """The items file: one row per item. Columns not named here are carried along as they are.

    A column named `embedding:<name>`, e.g. `embedding:image`, holds vectors made elsewhere, all of one width:
    lists of numbers in Parquet, in CSV numbers with spaces between them or a JSON list. An empty cell is an
    item without one.
    """

    columns: ItemColumns = ItemColumns()
    time_format: TimeFormat = "auto"
    """Of `columns.published`. `auto` decides once for the whole file, from its first 1,000 times."""
    category_separator: Annotated[str, Field(min_length=1)] = "|"
    """What stands between the categories of one cell. A list column of a Parquet file needs none. There may
    be 5,000 different categories at most."""
    no_categories: tuple[str, ...] = ()
    """Cells that mean "no category", e.g. "(no genres listed)"."""


class UserColumns(Table):
    user_id: ColumnName = "user_id"
    attributes: dict[Annotated[str, Field(pattern=r"^\w{1,64}$")], ColumnName] = {}
    """Attributes and their columns, e.g. `country = "Country"`. Empty: all of the file's other columns."""

    @field_validator("attributes")
    @classmethod
    def _names_are_free(cls, attributes: dict[str, str]) -> dict[str, str]:
        names = [name.casefold() for name in attributes]
        if len({*names, "user_id", "line", "reason"}) < len(names) + 3:
            raise ValueError("attributes need different names, none of them user_id, line or reason")
        return attributes


class UsersConfig(FileConfig):
    """The users file: one row per user, attributes kept as the text they are."""

    columns: UserColumns = UserColumns()


class DataConfig(Table):
    """Where events come from and which of them are kept."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Names the folders of data, runs and exports: letters, digits, `.`, `_`, `-`."""
    source: Literal["files", "movielens-100k"] = "files"
    """`files`: those that `path` or the command line names. `movielens-100k`: from the package registry."""
    min_events_per_user: Annotated[int, Field(ge=1)] = 3
    """Users with fewer events are dropped. Leave-one-out holds back the two newest events: it judges by
    users with three, and trains on those with four, as one must be predicted from another."""
    unknown_items: Literal["drop", "keep"] = "drop"
    """Events on items that the items file lacks: dropped, or kept with the id as the title."""
    memory_limit_mb: Annotated[int, Field(ge=128)] = 1024
    """Memory that DuckDB may use; what does not fit goes to disk. It does not change the result."""
    events: EventsConfig = EventsConfig()
    items: ItemsConfig = ItemsConfig()
    users: UsersConfig = UsersConfig()

    @model_validator(mode="after")
    def _only_files_have_paths(self) -> DataConfig:
        named = [kind for kind in ("events", "items", "users") if getattr(self, kind).path is not None]
        if named and self.source != "files":
            raise ValueError(f'{named[0]}.path needs source = "files", and the source is "{self.source}"')
        return self


def event_type(value: object) -> EventType:
    """The type of a name in a configuration file, in any case of letters; raises ValueError."""
    if isinstance(value, EventType):
        return value
    names = EventType.__members__
    if isinstance(value, str) and value.upper() in names:
        return names[value.upper()]
    raise ValueError(f"{value!r} is no event type, which are {', '.join(names)}")
