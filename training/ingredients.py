"""What the model is told besides which items a user took, and the variants of a configuration that tell what
each of it gains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from training.config import Config


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a retrieval is trained with; all False: ids only."""

    text: bool
    """`model.item_features`: texts and categories in all item vectors."""
    users: bool
    """`model.user_attributes`."""
    time: bool
    """`model.times`."""

    def __str__(self) -> str:
        """A folder's name."""
        return "-".join(["ids", *(field.name for field in fields(self) if getattr(self, field.name))])


@dataclass(frozen=True, slots=True)
class Variant:
    """A row of a table."""

    name: str
    ingredients: Ingredients
    ranked: bool = False
    """With the ranking network behind it; else the retrieval alone."""
    default: str = ""
    """Whether the configuration has what this row is about: `on` or `off`."""


@dataclass(frozen=True, slots=True)
class VariantTable:
    """Rows that are compared."""

    title: str
    rows: tuple[Variant, ...]
    to_the_first: bool
    """Each row is compared with the first; else with the one before it."""


def ingredients_of(config: Config) -> Ingredients:
    """Those of a configuration."""
    model = config.model
    return Ingredients(model.item_features, model.user_attributes, model.times)


def variant_tables(config: Config, attributes: bool) -> tuple[VariantTable, VariantTable]:
    """One ingredient after the other, from ids only to all of them; and each alone, added to or taken from
    the configuration.

    Args:
        attributes: whether anything is known of users; else that ingredient is left out.
    """
    default = ingredients_of(config)
    if not attributes:
        default = replace(default, users=False)
    names = {"text": "text and categories" if config.model.text != "none" else "categories"}
    names |= ({"users": "user attributes"} if attributes else {}) | {"time": "time"}
    ranking = _on(config.ranker.train)

    def chain() -> Iterator[Variant]:
        at = Ingredients(False, False, False)
        yield Variant("ids only", at, default="on")
        for key, name in names.items():
            at = replace(at, **{key: True})
            yield Variant(f"+ {name}", at, default=_on(getattr(default, key)))
        yield Variant("+ ranking", at, ranked=True, default=ranking)

    def alone() -> Iterator[Variant]:
        yield Variant("default, retrieval alone", default)
        for key, name in names.items():
            has = getattr(default, key)
            word = "without" if has else "with"
            yield Variant(f"{word} {name}", replace(default, **{key: not has}), default=_on(has))
        yield Variant("with ranking", default, ranked=True, default=ranking)

    return (
        VariantTable("One after the other", tuple(chain()), to_the_first=False),
        VariantTable("Each alone", tuple(alone()), to_the_first=True),
    )


def with_ingredients(config: Config, ingredients: Ingredients, ranked: bool) -> Config:
    """The configuration of a variant."""
    told = {
        "item_features": ingredients.text,
        "user_attributes": ingredients.users,
        "times": ingredients.time,
    }
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=told),
            "ranker": config.ranker.model_copy(update={"train": ranked}),
        }
    )


def _on(has: bool) -> str:
    return "on" if has else "off"
