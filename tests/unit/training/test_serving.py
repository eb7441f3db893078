"""The served graph, against a plain numpy reading of what it must do."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from features.catalog import CatalogItem
from features.schema import item_key
from tests.unit.training.asking import (
    CATEGORIES,
    ENCODED,
    ITEMS,
    KEYS,
    UNKNOWN,
    D,
    N,
    T,
    answer,
    request,
)
from tests.unit.training.models import facts, trained
from training.reasons import RECENCY
from training.serving import Served


@pytest.fixture(scope="module")
def model():
    return trained(facts(N))


@pytest.fixture(scope="module")
def served(model):
    return Served(model, ITEMS, CATEGORIES, page_size=10)


def expected_order(model, vector):
    return KEYS[np.argsort(-(model.items.vectors[1:] @ vector), kind="stable")]


def test_the_page_is_the_catalogue_in_order_of_score(model, served):
    vectors = np.random.default_rng(2).normal(size=(3, D)).astype(np.float32)
    got = answer(served, request([], [], [], fresh=1, vectors=vectors))
    for row, vector in enumerate(vectors):
        assert got["item_keys"][row].tolist() == expected_order(model, vector)[:10].tolist()
    assert (np.diff(got["scores"], axis=1) <= 0).all()
    assert (got["user_vector"] == vectors).all()


def test_only_rows_without_a_fresh_vector_are_encoded(served):
    history = KEYS[[3, 5, 7]]
    inputs = request(history, history, fresh=0, vectors=np.ones((2, D)))
    inputs["user_vector_fresh"][1] = 1
    got = answer(served, inputs)["user_vector"]
    encoded = served.encode(**{name: inputs[name] for name in ENCODED})
    assert got[0] == pytest.approx(encoded["user_vector"].numpy()[0], abs=1e-6)
    assert (got[1] == 1).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30])
def test_a_cached_vector_that_cannot_be_right_is_not_used(served, wrong):
    vectors = np.ones((2, D), np.float32)
    vectors[0, 3] = wrong
    got = answer(served, request(KEYS[[1, 2]], KEYS[[1, 2]], fresh=1, vectors=vectors))
    again = answer(served, request(KEYS[[1, 2]], fresh=0))
    assert np.isfinite(got["scores"]).all()
    assert got["item_keys"][0].tolist() == again["item_keys"][0].tolist()
    assert (got["user_vector"][1] == 1).all()


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_unknown_items_in_a_history_change_nothing(served, at):
    with_unknown = np.insert(KEYS[[3, 5, 7]], at, UNKNOWN)
    got, without = answer(served, request(with_unknown)), answer(served, request(KEYS[[3, 5, 7]]))
    assert got["user_vector"] == pytest.approx(without["user_vector"], abs=1e-6)
    assert got["item_keys"].tolist() == without["item_keys"].tolist()
    assert got["reason_keys"].tolist() == without["reason_keys"].tolist()


def test_the_order_of_the_history_counts(served):
    one, other = answer(served, request(KEYS[[3, 5, 7]])), answer(served, request(KEYS[[7, 5, 3]]))
    assert not np.allclose(one["user_vector"], other["user_vector"], atol=1e-3)


@pytest.mark.parametrize("history", [[], [UNKNOWN], [UNKNOWN] * T])
def test_nothing_known_of_a_user_gives_a_finite_vector_and_no_reasons(served, history):
    got = answer(served, request(history))
    assert np.isfinite(got["user_vector"]).all()
    assert np.isfinite(got["scores"]).all()
    assert (got["item_keys"] != 0).all()
    assert (got["reason_keys"] == 0).all()


def test_excluded_items_never_come_back_and_unknown_ones_do_no_harm(model, served):
    vectors = np.random.default_rng(3).normal(size=(2, D)).astype(np.float32)
    orders = [expected_order(model, vector) for vector in vectors]
    exclude = [[*orders[0][:6].tolist(), UNKNOWN], []]
    got = answer(served, request([], [], fresh=1, vectors=vectors, exclude=exclude))
    assert got["item_keys"][0].tolist() == orders[0][6:16].tolist()
    assert got["item_keys"][1].tolist() == orders[1][:10].tolist()


def test_a_category_filter_is_per_row_and_keeps_the_order(model, served):
    vectors = np.random.default_rng(4).normal(size=(3, D)).astype(np.float32)
    allowed = [[False, False, True, False], [True, True, True, True], [True, True, False, False]]
    got = answer(served, request([], [], [], fresh=1, vectors=vectors, allowed=allowed))
    for row, mask in enumerate(allowed):
        wanted = {c for c, ok in zip(CATEGORIES, mask[:3], strict=True) if ok}
        passes = {
            int(k) for k, item in zip(KEYS, ITEMS, strict=True) if all(mask) or wanted & set(item.categories)
        }
        order = [k for k in expected_order(model, vectors[row]).tolist() if k in passes]
        assert got["item_keys"][row].tolist() == order[:10]


def test_an_item_without_a_category_passes_no_filter_not_even_one_of_all_categories(model, served):
    # The vector of the item itself, much longer than the others: it would be the best.
    vectors = model.items.vectors[1:][[29, 29]] * 1000
    allowed = [[True, True, True, False], [True, True, True, True]]
    got = answer(served, request([], [], fresh=1, vectors=vectors, allowed=allowed))["item_keys"]
    assert KEYS[29] not in got[0]
    assert (got[0] != 0).all()
    assert got[1, 0] == KEYS[29]


def test_slots_with_nothing_allowed_left_are_zero(served):
    horror = [k for k, item in zip(KEYS.tolist(), ITEMS, strict=True) if "horror" in item.categories]
    inputs = request(KEYS[[3]], exclude=[horror[2:]], allowed=[[False, False, True, False]])
    got = answer(served, inputs)
    assert set(got["item_keys"][0, :2].tolist()) == set(horror[:2])
    assert (got["item_keys"][0, 2:] == 0).all()
    assert (got["scores"][0, 2:] == 0).all()
    assert (got["reason_keys"][0, 2:] == 0).all()
    nothing = answer(served, request(KEYS[[3]], allowed=[[False] * 4]))
    assert (nothing["item_keys"] == 0).all()


def test_a_reason_is_the_most_similar_item_of_the_history_the_newer_before_the_older(model, served):
    history = [2, 9, 17]
    got = answer(served, request(KEYS[history]))
    vectors = model.items.vectors[1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    position = {key: i for i, key in enumerate(KEYS.tolist())}
    for key, reason in zip(got["item_keys"][0].tolist(), got["reason_keys"][0].tolist(), strict=True):
        cosines = unit[history] @ unit[position[key]] - RECENCY * np.array([2, 1, 0])
        cosines[np.array(history) == position[key]] = -np.inf  # nothing is the reason for itself
        assert reason == KEYS[history[int(cosines.argmax())]]


def test_a_row_is_answered_alike_whatever_its_batch(served):
    rng = np.random.default_rng(6)
    histories = [rng.choice(KEYS, size) for size in (1, 8, 3, 5)]
    together = answer(served, request(*histories))
    for row, history in enumerate(histories):
        alone = answer(served, request(history))
        assert alone["item_keys"][0].tolist() == together["item_keys"][row].tolist()
        assert alone["scores"][0] == pytest.approx(together["scores"][row], abs=1e-5)


def test_the_largest_and_smallest_keys_are_looked_up_safely(served):
    extremes = [np.iinfo(np.int64).max, np.iinfo(np.int64).min]
    got = answer(served, request([*extremes, int(KEYS[4])], exclude=[extremes]))
    without = answer(served, request(KEYS[[4]]))
    assert got["item_keys"].tolist() == without["item_keys"].tolist()


def test_an_empty_batch_is_answered_with_an_empty_batch(served):
    got = answer(served, {name: array[:0] for name, array in request([]).items()})
    assert got["item_keys"].shape == (0, 10)


def test_a_catalogue_without_categories_and_smaller_than_a_page(tmp_path):
    small = trained(facts(3, model={"layers": 1, "width": 8, "heads": 1, "history": 4}))
    served = Served(small, [CatalogItem(c, c, ()) for c in "abc"], (), page_size=10)
    inputs = {
        "history_keys": np.array([[0, 0, 0, item_key("a")]]),
        "history_times": np.zeros((1, 4), np.int64),
        "history_types": np.ones((1, 4), np.int32),
        "user_features": np.zeros((1, 1), np.int64),
        "surface": np.zeros((1, 1), np.int64),
        "diversity": np.zeros((1, 1), np.float32),
        "request_time": np.zeros((1, 1), np.int64),
        "user_vector": np.zeros((1, 8), np.float32),
        "user_vector_fresh": np.zeros((1, 1), np.int32),
        "exclude_keys": np.array([[0, item_key("a")]]),
        "allowed_categories": np.ones((1, 1), bool),
    }
    keys = served.recommend(**inputs)["item_keys"].numpy()
    assert set(keys[0, :2].tolist()) == {item_key("b"), item_key("c")}
    assert keys[0, 2] == 0


def test_the_saved_signatures_list_every_tensor_by_its_name(served, tmp_path):
    signatures = {"recommend": served.recommend, "encode": served.encode}
    tf.saved_model.save(served, str(tmp_path / "m"), signatures=signatures)
    loaded = tf.saved_model.load(str(tmp_path / "m")).signatures
    assert set(loaded) == {"recommend", "encode"}
    inputs = request(KEYS[[3, 5]])
    recommend_inputs = loaded["recommend"].structured_input_signature[1]
    assert {n: (s.dtype.as_numpy_dtype, s.shape[1:].as_list()) for n, s in recommend_inputs.items()} == {
        name: (array.dtype.type, [None] if name == "exclude_keys" else list(array.shape[1:]))
        for name, array in inputs.items()
    }
    assert set(loaded["encode"].structured_input_signature[1]) == set(ENCODED)
    got = loaded["recommend"](**{name: tf.constant(array) for name, array in inputs.items()})
    want = answer(served, inputs)
    assert {name: tensor.shape[1:].as_list() for name, tensor in got.items()} == {
        "item_keys": [10], "scores": [10], "reason_keys": [10], "user_vector": [D],
    }  # fmt: skip
    for name, tensor in got.items():
        assert tensor.numpy() == pytest.approx(want[name], abs=1e-6), name


def test_diversity_of_one_row_leaves_the_others_as_they_are(served):
    inputs = request(KEYS[[1, 2]], KEYS[[3, 4]])
    plain = answer(served, inputs)
    inputs["diversity"][1] = 0.8
    diverse = answer(served, inputs)
    assert diverse["item_keys"][0].tolist() == plain["item_keys"][0].tolist()
    assert diverse["scores"][0].tolist() == plain["scores"][0].tolist()
    assert diverse["item_keys"][1].tolist() != plain["item_keys"][1].tolist()
    assert diverse["item_keys"][1, 0] == plain["item_keys"][1, 0]  # the best one stays the best
