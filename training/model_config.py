"""The tables of a configuration that say what is served: `[model]`, `[ranker]`, `[index]`, `[behaviour]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from features.schema import EventType
from training.data_config import Table, event_type

Size = Literal["small", "base", "large"]

SIZES: Mapping[Size, Mapping[str, int | float]] = {
    "small": {"layers": 1, "width": 64, "heads": 2, "history": 50, "dropout": 0.4},
    "base": {"layers": 2, "width": 128, "heads": 4, "history": 100, "dropout": 0.3},
    "large": {"layers": 8, "width": 256, "heads": 8, "history": 200, "dropout": 0.2},
}
"""What a size stands for; each key can be set by itself as well."""

SLOW_ENCODING = 200_000_000
"""Multiplications: some 10 ms on a CPU core, where an answer without them takes 1 ms."""


class ModelConfig(Table):
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

    @property
    def encoding_cost(self) -> int:
        """Multiplications that encoding one history takes: dense layers and attention of each block."""
        of_position = (4 + 2 * self.feed_forward) * self.width**2 + 2 * self.history * self.width
        return self.layers * self.history * of_position

    @property
    def encodes_slowly(self) -> bool:
        """Whether encoding would hold up requests: so is `large`, and not `base`."""
        return self.encoding_cost > SLOW_ENCODING


class RankerConfig(Table):
    """The network that re-scores the best candidates of the retrieval."""

    train: bool = True
    """Whether it is trained at all. It is served only if it improves the validation NDCG@10."""
    candidates: Annotated[int, Field(ge=100, le=1000)] = 100
    """How many are re-scored, at least as many as a page holds; the catalogue if that is smaller."""
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


Storage = Literal["float32", "bfloat16", "int8"]


class IndexConfig(Table):
    """How the served graph finds candidates: among all items, or in lists of like ones."""

    kind: Literal["auto", "exact", "inverted"] = "auto"
    """`exact` scores every item; `inverted` looks through the lists that promise most; `auto`: the latter for
    catalogues that are large enough to gain by it (`training.index_choice`)."""
    lists: Annotated[int, Field(ge=2, le=2**16)] | None = None
    """Not set: about four times the square root of the catalogue."""
    probes: Annotated[int, Field(ge=1)] | None = None
    """Lists that a request without a filter looks through, at the least: an export takes more if `recall`
    is not reached. Not set: 8."""
    storage: Storage = "float32"
    """What the lists hold. `bfloat16` and `int8` are copies beside the float32 vectors: half or a quarter of
    what a request reads, for so much more memory. Scores are float32 in any case."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The least share of the best candidates that has to be found, without a filter and within a category. If
    an index finds fewer, though it looks through an eighth of the lists, `inverted` is not exported, and
    `auto` scores every item."""


class Freshness(Table):
    """New items are lifted: an item of age 0 by `weight`, one of age `half_life_days` by half of that."""

    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """In units of the model's own scores, which are logits: 1 makes an item 2.7 times as likely."""


class BehaviourConfig(Table):
    """How behaviour is read: the setting that a recommender works in."""

    event_weights: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = Field(default={})
    """How much an event of a type counts, by its name, e.g. `PURCHASE = 5`; 1 where not named, 0: not at
    all."""
    consumes: tuple[str, ...] | None = None
    """Types after which an item is not recommended to the same user again. Not set: all that count; empty:
    none, as where people play the same song again."""
    interest_half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """After this long an event counts half as much. Not set: as the model has learned."""
    freshness: Freshness | None = None
    """Not set: an item's age does not matter, but for what the model has learned."""

    @field_validator("event_weights")
    @classmethod
    def _of_known_types(cls, weights: dict[str, float]) -> dict[str, float]:
        named = {event_type(name).name: weight for name, weight in weights.items()}
        if named and max(named.get(kind.name, 1.0) for kind in EventType) == 0:
            raise ValueError("event_weights must leave at least one type a weight above 0")
        return named

    @field_validator("consumes")
    @classmethod
    def _known_types(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(event_type(name).name for name in names)

    @model_validator(mode="after")
    def _what_is_ignored_consumes_nothing(self) -> BehaviourConfig:
        # The model is not trained on such events, so no figure could tell what masking their items costs.
        if both := set(self.ignored).intersection(self.consumes or ()):
            raise ValueError(
                f"event_weights gives {min(both)} a weight of 0, so that it is ignored, and consumes names "
                "it: take it out of one of them, or give it a small weight"
            )
        return self

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the event types with a weight of 0: no part of a history."""
        return tuple(name for name, weight in self.event_weights.items() if weight == 0)

    @property
    def consuming(self) -> tuple[str, ...] | None:
        """Names of the event types after which an item is not recommended again; None: all that there are."""
        if self.consumes is not None or not self.ignored:
            return self.consumes
        return tuple(kind.name for kind in EventType if kind.name not in self.ignored)

    def type_weights(self) -> tuple[float, ...]:
        """The weight of each event type, by its number; 1 for number 0, which is none."""
        by_number = {kind.value: self.event_weights.get(kind.name, 1.0) for kind in EventType}
        return tuple(by_number.get(number, 1.0) for number in range(max(EventType) + 1))
