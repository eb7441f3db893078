from __future__ import annotations

import pytest

from training.config import Config
from training.ingredients import Ingredients, ingredients_of, variant_tables, with_ingredients


def config(**tables):
    return Config.model_validate({"data": {"name": "shop"}, **tables})


def rows(table):
    return [
        (variant.name, str(variant.ingredients), variant.ranked, variant.default) for variant in table.rows
    ]


def test_ingredients_are_added_one_after_the_other_and_each_alone():
    chain, alone = variant_tables(config(), attributes=True)
    assert rows(chain) == [
        ("ids only", "ids", False, "on"),
        ("+ text and categories", "ids-text", False, "off"),
        ("+ user attributes", "ids-text-users", False, "off"),
        ("+ time", "ids-text-users-time", False, "on"),
        ("+ ranking", "ids-text-users-time", True, "on"),
    ]
    assert rows(alone) == [
        ("default, retrieval alone", "ids-time", False, ""),
        ("with text and categories", "ids-text-time", False, "off"),
        ("with user attributes", "ids-users-time", False, "off"),
        ("without time", "ids", False, "on"),
        ("with ranking", "ids-time", True, "on"),
    ]


def test_what_is_not_there_is_no_ingredient():
    chain, alone = variant_tables(config(model={"text": "none", "user_attributes": True}), attributes=False)
    assert [row[0] for row in rows(chain)] == ["ids only", "+ categories", "+ time", "+ ranking"]
    assert not any(variant.ingredients.users for variant in (*chain.rows, *alone.rows))


@pytest.mark.parametrize("ranked", [False, True])
def test_a_variant_is_the_configuration_but_for_its_ingredients(ranked):
    given = config(model={"width": 32}, ranker={"hidden": 16})
    wanted = Ingredients(text=True, users=False, time=False)
    made = with_ingredients(given, wanted, ranked)
    assert ingredients_of(made) == wanted
    assert (made.model.width, made.ranker.hidden, made.ranker.train) == (32, 16, ranked)
    assert with_ingredients(given, ingredients_of(given), True) == given
