"""The TOML configuration of a run: which columns mean what, how large the model is, how it is trained.

`load_config` is the only way in. Unknown keys are refused, and a wrong value is answered with the file, the
key and what would be right. Values never come from the environment: a run is described by its file alone.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from features.schema import EventType
from training.errors import TrainingError

VECTOR_PREFIX = "embedding:"
"""Begins the names of the items file's columns of vectors."""

ColumnName = Annotated[str, Field(min_length=1)]
FileFormat = Literal["auto", "csv", "parquet"]
TimeFormat = Literal["auto", "seconds", "milliseconds", "iso8601"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileConfig(_Table):
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


class EventColumns(_Table):
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
            return {word: _event_type(name) for word, name in value.items()}
        return _event_type(value)

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


class ItemColumns(_Table):
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
    """What stands between the categories of one cell. A list column of a Parquet file needs none."""
    no_categories: tuple[str, ...] = ()
    """Cells that mean "no category", e.g. "(no genres listed)"."""


class UserColumns(_Table):
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


class DataConfig(_Table):
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


Size = Literal["small", "base", "large"]

SIZES: Mapping[Size, Mapping[str, int | float]] = {
    "small": {"layers": 1, "width": 64, "heads": 2, "history": 50, "dropout": 0.4},
    "base": {"layers": 2, "width": 128, "heads": 4, "history": 100, "dropout": 0.3},
    "large": {"layers": 8, "width": 256, "heads": 8, "history": 200, "dropout": 0.2},
}
"""What a size stands for; each key can be set by itself as well."""


class ModelConfig(_Table):
    """The size of the transformer, what it is told, and the graph that is served."""

    size: Size = "small"
    """`small` trains on two CPU cores, `base` wants more of them, `large` a GPU. It gives the first five keys
    below, where they are not set themselves."""
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    width: Annotated[int, Field(ge=8, le=4096)] = 64
    """Width of the item embeddings, the encoder and the user vector (D)."""
    heads: Annotated[int, Field(ge=1, le=64)] = 2
    history: Annotated[int, Field(ge=2, le=4096)] = 50
    """Newest events that the encoder sees (T)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    feed_forward: Annotated[int, Field(ge=1, le=16)] = 2
    """Width of the feed-forward network of a block, as a multiple of `width`."""
    times: bool = True
    """Whether attention depends on how long ago an event was."""
    text: Literal["none", "multilingual", "minilm"] = "multilingual"
    """The language model that reads the items' texts, for the vectors of items that nobody took yet."""
    item_features: bool = False
    """Whether all item vectors are made of ids and features (text, categories, `embedding:*` vectors), and
    not only those of items that nobody took."""
    user_attributes: bool = False
    """Whether the model sees the attributes of the users file."""
    feature_hidden: Annotated[int, Field(ge=8, le=4096)] = 128
    """Width of the ReLU layer between an item's features and its vector."""
    feature_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the item ids that a training step leaves out, so that the features learn to stand alone."""
    page_size: Annotated[int, Field(ge=100, le=1000)] = 100
    """Items that the served graph returns (K), or the catalogue's size if that is smaller. A caller may ask
    for 100."""

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: object) -> object:
        if isinstance(given, dict) and isinstance(given.get("size"), str) and given["size"] in SIZES:
            return {**SIZES[given["size"]], **given}
        return given

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ModelConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class RankerConfig(_Table):
    """The network that re-scores the best candidates of the retrieval."""

    train: bool = True
    """Whether it is trained at all. It is served only if it improves the validation NDCG@10."""
    candidates: Annotated[int, Field(ge=100, le=1000)] = 100
    """How many are re-scored, but never fewer than a page holds, or the catalogue if that is smaller."""
    recent: Annotated[int, Field(ge=1, le=256)] = 20
    """Newest events that a candidate is compared with one by one; at most the encoder's history."""
    hidden: Annotated[int, Field(ge=4, le=1024)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    negatives: Annotated[int, Field(ge=1, le=256)] = 20
    """Candidates that were not taken, for each one that was."""
    epochs: Annotated[int, Field(ge=1)] = 6
    batch_size: Annotated[int, Field(ge=1)] = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class Freshness(_Table):
    """New items are lifted: an item of age 0 by `weight`, one of age `half_life_days` by half of that."""

    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """In units of the model's own scores, which are logits: 1 makes an item 2.7 times as likely."""


class BehaviourConfig(_Table):
    """How behaviour is read: the setting that a recommender works in."""

    event_weights: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = {}
    """How much an event of a type counts, by its name, e.g. `PURCHASE = 5`; 1 where not named, 0: not at
    all."""
    consumes: tuple[str, ...] | None = None
    """Types after which an item is not recommended to the same user again. Not set: all of them; empty: none,
    as where people play the same song again."""
    interest_half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """After this long an event counts half as much. Not set: as the model has learned."""
    freshness: Freshness | None = None
    """Not set: an item's age does not matter, but for what the model has learned."""

    @field_validator("event_weights")
    @classmethod
    def _of_known_types(cls, weights: dict[str, float]) -> dict[str, float]:
        named = {_event_type(name).name: weight for name, weight in weights.items()}
        if named and max(named.get(kind.name, 1.0) for kind in EventType) == 0:
            raise ValueError("event_weights must leave at least one type a weight above 0")
        return named

    @field_validator("consumes")
    @classmethod
    def _known_types(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(_event_type(name).name for name in names)

    def type_weights(self) -> tuple[float, ...]:
        """The weight of each event type, by its number; 1 for number 0, which is none."""
        by_number = {kind.value: self.event_weights.get(kind.name, 1.0) for kind in EventType}
        return tuple(by_number.get(number, 1.0) for number in range(max(EventType) + 1))


class PrivacyConfig(_Table):
    """Differentially private training (DP-SGD). Off unless `noise` is above 0."""

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Standard deviation of the noise, as a multiple of `clip`. Above 0, `ranker.train` must be false."""
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Longest gradient of one user."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The chance of failure that epsilon is stated for; below one over the number of users."""


class TrainingConfig(_Table):
    """How the model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """At most. The learning rate falls along a cosine that reaches zero after this many."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Windows in a batch, over all devices and workers."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW, after the warm-up and before the decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Batches over which the learning rate rises from zero in a straight line."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Epochs without a better validation NDCG@10 before training stops."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    sampled_softmax_threshold: Annotated[int, Field(ge=1)] = 20_000
    """Catalogues with more items than this are trained with sampled softmax."""
    sampled_negatives: Annotated[int, Field(ge=1)] = 2048
    mixed_precision: bool = False
    """Computes in float16 where that is safe; weights stay float32. For GPUs: a CPU is slower with it."""


_PRIVATE: Mapping[str, bool | str] = {
    "ranker.train": False,  # it is not trained privately
    "model.user_attributes": False,  # their vocabulary is what users have
    "data.unknown_items": "drop",  # the catalogue would be what users had
    "training.mixed_precision": False,  # gradients are clipped as they are
}
"""What private training cannot do with; see docs/decisions/0017-private-training.md."""


class EvaluationConfig(_Table):
    """How a trained model is judged."""

    cutoffs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (5, 10, 20)
    """The k of HR@k, NDCG@k and their like."""
    global_split_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The global time split trains on events before this quantile of all times and tests on those after."""


class Config(_Table):
    """One training run."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    ranker: RankerConfig = RankerConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("privacy")
    @classmethod
    def _leaves_nothing_out(cls, privacy: PrivacyConfig, info: ValidationInfo) -> PrivacyConfig:
        if not privacy.noise:
            return privacy
        for key, wanted in _PRIVATE.items():
            table, name = key.split(".")
            if table in info.data and getattr(info.data[table], name) != wanted:
                raise ValueError(f"with noise, {key} must be {json.dumps(wanted)}")
        return privacy


def load_config(path: Path) -> Config:
    """Reads and checks a TOML file.

    Raises `TrainingError` if it is missing, not TOML, or holds an unknown key or a wrong value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise TrainingError(f"configuration {path} cannot be read: {_cause(exc)}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise TrainingError(f"configuration {path} is not valid TOML: {exc}") from exc
    try:
        return Config.model_validate(document, context={"folder": path.parent})
    except ValidationError as exc:
        raise TrainingError(_sentence(path, exc)) from exc


def _event_type(value: object) -> EventType:
    if isinstance(value, EventType):
        return value
    names = EventType.__members__
    if isinstance(value, str) and value.upper() in names:
        return names[value.upper()]
    raise ValueError(f"{value!r} is no event type, which are {', '.join(names)}")


def _cause(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is not UTF-8 text"


def _sentence(path: Path, exc: ValidationError) -> str:
    first, *others = exc.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        problem = "is not a known key"
    elif first["type"] == "missing":
        problem = "is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        problem = f"is wrong: {message[:1].lower()}{message[1:]} (got {first['input']!r:.100})"
    more = f", and {len(others)} more such faults" if others else ""
    return f"configuration {path}: {key} {problem}{more}"
