"""The settings shop, media, social and news: what the `[behaviour]` of each file does to a page.

It is read from the very file that is shipped, and compared with the same model without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.schema import EventType
from tests.unit.training.recommending import (
    DAY_S,
    ITEMS,
    NOW,
    D,
    Recommender,
    T,
    every,
    prepared,
    tiny,
    trained,
)
from training.cold_items import ItemVectors
from training.config import load_config
from training.dataset import Prepared
from training.model_config import BehaviourConfig
from training.ranker import build_ranker

CONFIGS = Path(__file__).parents[3] / "training" / "configs"


def behaviour(setting: str) -> BehaviourConfig:
    return load_config(CONFIGS / f"{setting}.toml").behaviour


def without(behaviour: BehaviourConfig, name: str) -> BehaviourConfig:
    """With the default of one of its fields."""
    assert name in behaviour.model_fields_set, "the setting says nothing of it"
    return behaviour.model_copy(update={name: BehaviourConfig.model_fields[name].default})


class Taste:
    """A model that has learned to go on with what most of a history is of, under any setting.

    Everything it saw was of one type and within minutes, so that neither weights of types nor half-lives of
    days had anything to say: it has the weights that each of the settings would have trained.
    """

    def __init__(self, data: Prepared, weights: Sequence[Any]) -> None:
        self._data, self._weights = data, weights
        self._known: dict[str, Recommender] = {}

    def under(self, behaviour: BehaviourConfig) -> Recommender:
        key = behaviour.model_dump_json()
        if key not in self._known:
            model = trained(behaviour, self._data, weights=self._weights)
            self._known[key] = Recommender(model, self._data)
        return self._known[key]


@pytest.fixture(scope="module")
def taste(tmp_path_factory: pytest.TempPathFactory) -> Taste:
    rng = np.random.default_rng(1)
    log = {}
    for user in range(120):
        mostly, sometimes = rng.permutation(list("abcd"))[:2]
        departments = rng.choice([mostly, sometimes], size=3 * T, p=[0.8, 0.2])
        items = [f"{department}{rng.integers(6)}" for department in departments]
        log[f"user-{user:03}"] = every(items, EventType.PLAY, NOW - 400 * DAY_S)
    data = prepared(tmp_path_factory.mktemp("taste") / "data", log)
    return Taste(data, trained(BehaviourConfig(), data, epochs=10).model.get_weights())


# What counts


def test_in_a_shop_purchases_are_followed_and_not_the_views_that_are_more_of(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    log = {}
    for user in range(400):
        views, buys = rng.permutation(list("abcd"))[:2]
        log[f"user-{user:03}"] = [
            (f"{buys}{n}", EventType.PURCHASE, NOW + 10 * i)
            if rng.random() < 0.25
            else (f"{views}{n}", EventType.VIEW, NOW + 10 * i)
            for i, n in enumerate(rng.integers(6, size=3 * T))
        ]
    data = prepared(tmp_path / "data", log)
    setting = behaviour("shop")
    # One epoch: which is the best of several is judged by all events alike, and most of them are views.
    leads = []
    for one in (setting, without(setting, "event_weights")):
        shop = Recommender(trained(one, data, epochs=1), data)
        earlier = every(["b0", "b1"], EventType.PURCHASE, NOW)
        lately = every(["a0", "a1", "a2", "a3"], EventType.VIEW, NOW + 100)
        page = shop.page([*earlier, *lately], time=NOW + 200, include_seen=True)
        leads.append(page.mean("b") - page.mean("a"))
    weighted, unweighted = leads
    assert weighted > 0.5
    assert unweighted < -0.5


def test_a_shop_learns_to_sell_and_not_to_show_what_everybody_looks_at(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    log = {
        f"user-{user:03}": [
            (f"b{n}", EventType.PURCHASE, NOW + 10 * i)
            if rng.random() < 0.25
            else (f"a{n}", EventType.VIEW, NOW + 10 * i)
            for i, n in enumerate(rng.integers(6, size=2 * T))
        ]
        for user in range(200)
    }
    data = prepared(tmp_path / "data", log)

    def leader(behaviour: BehaviourConfig) -> str:
        # Of one event there is nothing to weigh against another: what counts is what was learned to follow.
        page = Recommender(trained(behaviour, data, epochs=1), data).page(
            [("a0", EventType.VIEW, NOW)], time=NOW + 10
        )
        return max("ab", key=page.mean)

    setting = behaviour("shop")
    assert leader(setting) == "b"
    assert leader(without(setting, "event_weights")) == "a"


@pytest.mark.parametrize(
    ("setting", "strong", "weak"),
    [
        ("shop", "PURCHASE", "VIEW"),
        ("shop", "ADD_TO_CART", "VIEW"),
        ("media", "LIKE", "PLAY"),
        ("media", "SAVE", "PLAY"),
        ("social", "SHARE", "LIKE"),
        ("social", "SAVE", "CLICK"),
        ("news", "READ", "CLICK"),
    ],
)
def test_a_strong_event_says_more_than_a_weak_one(taste: Taste, setting: str, strong: str, weak: str) -> None:
    history = [
        *every(["b0", "b1"], EventType[strong], NOW - 100),
        *every(["a0", "a1", "a2"], EventType[weak], NOW - 50),
    ]

    def lead(behaviour: BehaviourConfig) -> float:
        page = taste.under(behaviour).page(history, include_seen=True)
        return page.mean("b") - page.mean("a")

    full = behaviour(setting)
    assert lead(full) > lead(without(full, "event_weights")) + 0.5


# What returns


@pytest.mark.parametrize(
    ("setting", "kind", "returns"),
    [
        ("shop", "PURCHASE", False),
        ("shop", "ADD_TO_CART", True),
        ("shop", "VIEW", True),
        ("media", "PLAY", True),
        ("media", "LIKE", True),
        ("social", "VIEW", False),
        ("social", "SHARE", False),
        ("news", "CLICK", False),
        ("news", "READ", False),
    ],
)
def test_what_a_user_had_returns_where_the_setting_lets_it(
    taste: Taste, setting: str, kind: str, returns: bool
) -> None:
    page = taste.under(behaviour(setting)).page(
        [("b0", EventType.RATE, NOW - 9), ("a0", EventType[kind], NOW - 5)]
    )
    assert ("a0" in page.items) is returns
    assert "a1" in page.items


def test_what_was_played_over_and_over_is_first_on_a_page_of_media(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    log = {}
    for user in range(800):
        favourite = rng.choice(ITEMS)
        plays = np.where(rng.random(2 * T) < 0.6, favourite, rng.choice(ITEMS, 2 * T))
        log[f"user-{user:03}"] = every(plays, EventType.PLAY, NOW)
    data = prepared(tmp_path / "data", log)
    setting = behaviour("media")
    # One epoch: which is the best of several is judged by what is new to a user, and this is about the rest.
    model = trained(setting, data, epochs=1)
    elsewhere = replace(model, facts=replace(model.facts, config=tiny(without(setting, "consumes"))))
    history = every(["a0", "c3", "a0", "d1", "a0", "a0"], EventType.PLAY, NOW)
    assert Recommender(model, data).page(history).items[0] == "a0"
    assert "a0" not in Recommender(elsewhere, data).page(history).items


# How fast interest fades


@pytest.mark.parametrize(
    ("setting", "days", "kept"),
    [
        ("news", 0.1, True),
        ("news", 3, False),
        ("social", 0.5, True),
        ("social", 14, False),
        ("shop", 10, True),
        ("shop", 150, False),
        ("media", 60, True),
        ("media", 730, False),
    ],
)
def test_an_old_interest_gives_way_to_a_new_one_after_hours_days_weeks_or_months(
    taste: Taste, setting: str, days: float, kept: bool
) -> None:
    full = behaviour(setting)
    # Long before, twice as much of one thing as lately of another.
    old = every(["a0", "a1", "a2", "a3"], EventType.RATE, NOW - int(days * DAY_S) - 100)
    history = [*old, *every(["b0", "b1"], EventType.RATE, NOW - 100)]

    def leader(behaviour: BehaviourConfig) -> str:
        page = taste.under(behaviour).page(history, include_seen=True)
        return max("abcd", key=page.mean)

    assert leader(full) == ("a" if kept else "b")
    assert leader(without(full, "interest_half_life_days")) == "a"


# How much newer is better

MakeRecommender = Callable[[BehaviourConfig, bool], Recommender]


@pytest.fixture
def newsroom(tmp_path: Path) -> MakeRecommender:
    """Makes a model by which a0 and a1 are equally relevant, b0 a little (1.0) more, and all others far less.
    Of these a1 is of just now, the others are two days old."""
    published = dict.fromkeys(ITEMS, NOW - 2 * DAY_S) | {"a1": NOW}
    data = prepared(tmp_path / "data", {"user": every(ITEMS, EventType.LIKE, NOW - DAY_S)}, published)

    def make(behaviour: BehaviourConfig, ranked: bool) -> Recommender:
        model = trained(behaviour, data)
        # All vectors are alike: what is relevant is what is added to the score of an item.
        vectors = np.ones((len(ITEMS) + 1, D), np.float32)
        levels = np.full(len(ITEMS) + 1, -20.0, np.float32)
        levels[[1 + ITEMS.index(item) for item in ("a0", "a1", "b0")]] = 0.0, 0.0, 1.0
        # Untrained, the ranking network answers with the scores that it is given.
        ranker = build_ranker(model.facts.config.ranker, D, 1, 1) if ranked else None
        return Recommender(replace(model, items=ItemVectors(vectors, levels), ranker=ranker), data)

    return make


def first(service: Recommender, *, days: float = 0.0) -> list[str]:
    """The three relevant items in their order, some days from now."""
    return service.page([], time=NOW + int(days * DAY_S)).items[:3]


@pytest.mark.parametrize("ranked", [False, True])
def test_news_of_this_minute_come_before_what_is_a_little_more_relevant_and_older(
    newsroom: MakeRecommender, ranked: bool
) -> None:
    news = newsroom(behaviour("news"), ranked)
    assert first(news) == ["a1", "b0", "a0"]
    # A day and a half later they are news no longer, but still the newer of two equals.
    assert first(news, days=1.5) == ["b0", "a1", "a0"]
    assert first(newsroom(without(behaviour("news"), "freshness"), ranked)) == ["b0", "a0", "a1"]


@pytest.mark.parametrize("ranked", [False, True])
def test_a_new_post_comes_before_an_equal_but_not_before_what_is_more_relevant(
    newsroom: MakeRecommender, ranked: bool
) -> None:
    assert first(newsroom(behaviour("social"), ranked)) == ["b0", "a1", "a0"]
    assert first(newsroom(without(behaviour("social"), "freshness"), ranked)) == ["b0", "a0", "a1"]


@pytest.mark.parametrize("setting", ["social", "news"])
def test_the_lead_of_what_is_new_halves_with_the_half_life(newsroom: MakeRecommender, setting: str) -> None:
    freshness = behaviour(setting).freshness
    assert freshness is not None
    service = newsroom(behaviour(setting), False)

    def lead(days: float) -> float:
        scores = service.page([], time=NOW + int(days * DAY_S)).scores
        return scores["a1"] - scores["a0"]

    at_once = freshness.weight * (1 - 0.5 ** (2 / freshness.half_life_days))
    assert lead(0) == pytest.approx(at_once, abs=1e-4)
    assert lead(freshness.half_life_days) == pytest.approx(at_once / 2, abs=1e-4)
    assert lead(20 * freshness.half_life_days) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("setting", ["shop", "media"])
def test_what_is_newer_is_not_better_in_a_shop_or_in_media(newsroom: MakeRecommender, setting: str) -> None:
    scores = newsroom(behaviour(setting), False).page([]).scores
    assert scores["a1"] == scores["a0"]


def test_freshness_of_news_halves_within_a_day_and_moves_more_than_that_of_a_feed() -> None:
    news, social = behaviour("news").freshness, behaviour("social").freshness
    assert news is not None
    assert social is not None
    assert news.half_life_days < min(1, social.half_life_days)
    assert news.weight > social.weight
