"""The served graph, against a plain numpy reading of what it must do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from features.catalog import CatalogItem
from features.schema import EventType, feature_key, item_key, item_keys, surface_key
from tests.unit.training.models import facts, trained
from training.cold_items import ItemVectors
from training.golden import candidates_of, largest_difference, requests_of
from training.index import build_index
from training.index_kinds import Kinds
from training.offline import Offline
from training.reasons import RECENCY
from training.serving import Served
from training.user_features import vocabulary

T, D, N = 8, 16, 30
CATEGORIES = ("comedy", "drama", "horror")
ITEMS = tuple(
    CatalogItem(
        f"i{i}", f"Title {i}", () if i == 29 else (CATEGORIES[i % 3],) + (("horror",) if i == 0 else ())
    )
    for i in range(N)
)
KEYS = item_keys(item.item_id for item in ITEMS)
UNKNOWN = item_key("not in this version")
ENCODED = ("history_keys", "history_times", "history_types", "request_time", "user_features")


@pytest.fixture(scope="module")
def model():
    return trained(facts(N))


@pytest.fixture(scope="module")
def served(model):
    return Served(model, ITEMS, CATEGORIES, page_size=10)


def request(*histories, fresh=0, vectors=None, exclude=(), allowed=None):
    rows = len(histories)

    def padded(values, width):
        array = np.zeros((rows, width), np.int64)
        for row, keys in zip(array, values, strict=True):
            if len(keys):
                row[-len(keys) :] = keys
        return array

    return {
        "history_keys": padded(histories, T),
        "history_times": np.where(padded(histories, T) != 0, np.arange(T) + 1_600_000_000, 0),
        "history_types": np.where(padded(histories, T) != 0, EventType.CLICK, 0).astype(np.int32),
        "user_features": np.zeros((rows, 1), np.int64),
        "request_time": np.full((rows, 1), 1_700_000_000, np.int64),
        "user_vector": np.zeros((rows, D), np.float32) if vectors is None else np.float32(vectors),
        "user_vector_fresh": np.full((rows, 1), fresh, np.int32),
        "exclude_keys": padded(list(exclude) or [[]] * rows, max(map(len, exclude), default=0)),
        "allowed_categories": np.ones((rows, 4), bool) if allowed is None else np.array(allowed),
        "surface": np.zeros((rows, 1), np.int64),
        "diversity": np.zeros((rows, 1), np.float32),
    }


def answer(served, inputs):
    return {name: tensor.numpy() for name, tensor in served.recommend(**inputs).items()}


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


def varied(rows=12, seed=5):
    """Requests that use every input."""
    rng = np.random.default_rng(seed)
    histories = [rng.choice(KEYS, rng.integers(0, 2 * T), replace=False)[-T:] for _ in range(rows)]
    exclude = [rng.choice(KEYS, rng.integers(0, 6), replace=False).tolist() for _ in range(rows)]
    inputs = request(*histories, exclude=exclude)
    real = inputs["history_keys"] != 0
    times = np.sort(rng.integers(1_600_000_000, 1_700_000_000, (rows, T)), axis=1)
    inputs["history_times"] = np.where(real, times, 0)
    inputs["history_types"] = np.where(real, rng.integers(1, 11, (rows, T)), 0).astype(np.int32)
    inputs["request_time"] = rng.integers(1_700_000_000, 1_700_900_000, (rows, 1))
    inputs["user_features"] = np.array([[feature_key("c", v), 0] for v in rng.choice(["x", "y", "?"], rows)])
    inputs["surface"] = np.array([[surface_key(v)] for v in rng.choice(["home", "search", ""], rows)])
    inputs["diversity"] = (np.arange(rows)[:, None] % 3 / 2.0).astype(np.float32)
    inputs["allowed_categories"][::4] = [True, False, True, False]
    return inputs


def full(ranker, seed=2, **behaviour):
    """A model that uses every input."""
    some = facts(
        N,
        ranker={"candidates": 100, "recent": 4},
        behaviour={
            "event_weights": {"VIEW": 0, "PURCHASE": 4},
            "interest_half_life_days": 100,
            "freshness": {"half_life_days": 2, "weight": 1.5},
            **behaviour,
        },
    )
    rng = np.random.default_rng(seed)
    some = dataclasses.replace(
        some,
        vocabulary=vocabulary({"c": ["x"] * 5 + ["y"] * 5, "d": ["z"] * 5}),
        attributes=("c", "d"),
        surfaces=np.sort([surface_key("home"), surface_key("search")]),
        item_users=rng.integers(1, 99, N),
        item_times=np.concatenate([[0], rng.choice([0, 1_699_990_000, 1_700_000_000], N)]),
        published=np.concatenate([[0], rng.choice([0, 0, 1_700_500_000], N)]),
    )
    model = trained(some, seed=seed, ranker=ranker)
    for weight in model.model.weights:
        if "time_bias" in weight.path or "attributes" in weight.path:
            weight.assign(rng.normal(size=weight.shape))
    levels = np.where(rng.random(N + 1) < 0.3, 0.7, 0.0).astype(np.float32)
    return dataclasses.replace(model, items=ItemVectors(model.items.vectors, levels))


@pytest.mark.parametrize("ranker", [False, True])
def test_the_graph_answers_as_the_model_does_request_by_request(ranker):
    model = full(ranker)
    served, inputs = Served(model, ITEMS, CATEGORIES, page_size=10), varied()
    got = answer(served, inputs)
    offline = Offline(model, ITEMS, 10)
    golden = {f"in:{name}": array for name, array in inputs.items()}
    for row, asked in enumerate(requests_of(golden, KEYS, CATEGORIES)):
        page = offline.page(asked)
        count = len(page.items)
        assert got["item_keys"][row, :count].tolist() == KEYS[page.items - 1].tolist(), row
        assert got["scores"][row, :count] == pytest.approx(page.scores, abs=1e-4)
        assert (got["item_keys"][row, count:] == 0).all()


@pytest.fixture(params=[False, True], ids=["retrieval", "ranked"])
def indexed(request):
    """A model that uses every input, a graph of it that looks through two of six lists, and its answers."""
    model = full(request.param)
    index = build_index(model.items.vectors, model.items.levels, lists=6, probes=2)
    index = dataclasses.replace(index, narrow=0)
    served, inputs = Served(model, ITEMS, CATEGORIES, page_size=10, index=index), varied()
    asked = {f"in:{name}": array for name, array in inputs.items()}
    return model, served, asked | {f"out:{name}": array for name, array in answer(served, inputs).items()}


def test_a_graph_with_an_index_answers_as_the_model_does_among_what_it_found(indexed):
    model, served, golden = indexed
    found = candidates_of(golden, served)
    assert largest_difference(golden, model, ITEMS, CATEGORIES, found) < 1e-4
    assert (golden["out:item_keys"][:, 0] != 0).all()


def test_a_wrong_answer_of_a_graph_with_an_index_is_a_difference(indexed):
    model, served, golden = indexed
    found = candidates_of(golden, served)

    def differs(name, at, value, candidates=found):
        changed = golden[name].copy()
        changed[at] = value
        return largest_difference({**golden, name: changed}, model, ITEMS, CATEGORIES, candidates)

    assert differs("out:scores", (3, 2), golden["out:scores"][3, 2] + 0.01) == pytest.approx(0.01, abs=1e-3)
    others = np.setdiff1d(KEYS, golden["out:item_keys"][3])
    assert differs("out:item_keys", (3, 2), others[0]) == np.inf
    # What a request excludes is none of its candidates, whoever says so.
    best = golden["out:item_keys"][3, 0]
    assert differs("in:exclude_keys", (3, 0), best) == np.inf
    fewer = np.where(found == np.flatnonzero(best == KEYS)[0] + 1, 0, found)
    assert differs("out:scores", (3, 0), golden["out:scores"][3, 0], fewer) == np.inf


@pytest.mark.parametrize("method", ["members", "lists"])
def test_a_page_of_a_graph_with_an_index_that_is_shorter_than_its_filter_allows_is_a_difference(
    monkeypatch, method
):
    model = full(False)
    index = build_index(model.items.vectors, model.items.levels, lists=6, probes=2)
    index = dataclasses.replace(index, narrow=N if method == "members" else 0)

    def differs():
        served, inputs = Served(model, ITEMS, CATEGORIES, page_size=10, index=index), varied()
        golden = {f"in:{name}": array for name, array in inputs.items()}
        golden |= {f"out:{name}": array for name, array in answer(served, inputs).items()}
        return largest_difference(golden, model, ITEMS, CATEGORIES, candidates_of(golden, served))

    assert differs() < 1e-4
    empty = {"members": tf.zeros((0,), tf.int32), "lists": tf.zeros((6,), tf.bool)}[method]
    monkeypatch.setattr(Kinds, method, lambda self, which: empty)
    assert differs() == np.inf


def test_a_graph_with_an_index_is_saved_and_answers_as_before(indexed, tmp_path):
    _, served, golden = indexed
    signatures = {"recommend": served.recommend, "encode": served.encode}
    tf.saved_model.save(served, str(tmp_path / "m"), signatures=signatures)
    loaded = tf.saved_model.load(str(tmp_path / "m")).signatures["recommend"]
    got = loaded(**{name[3:]: tf.constant(a) for name, a in golden.items() if name.startswith("in:")})
    for name, tensor in got.items():
        assert tensor.numpy() == pytest.approx(golden[f"out:{name}"], abs=1e-5), name


@pytest.mark.parametrize(
    "changed",
    [
        {"surface": np.full((12, 1), surface_key("search"))},
        {"request_time": np.full((12, 1), 1_702_000_000)},
        {"user_features": np.full((12, 2), feature_key("d", "z"))},
        {"diversity": np.full((12, 1), 0.9, np.float32)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_input_counts(changed):
    served, inputs = Served(full(True), ITEMS, CATEGORIES, page_size=10), varied()
    before, after = answer(served, inputs), answer(served, {**inputs, **changed})
    assert before["item_keys"].tolist() != after["item_keys"].tolist()


def test_an_event_of_a_type_that_does_not_count_changes_nothing():
    served, inputs = Served(full(True), ITEMS, CATEGORIES, page_size=10), varied()
    views = inputs["history_types"] == EventType.VIEW
    assert views.any()
    without = {**inputs, "history_keys": np.where(views, 0, inputs["history_keys"])}
    got, want = answer(served, inputs), answer(served, without)
    assert got["item_keys"].tolist() == want["item_keys"].tolist()
    assert got["scores"] == pytest.approx(want["scores"], abs=1e-6)


def test_diversity_of_one_row_leaves_the_others_as_they_are(served):
    inputs = request(KEYS[[1, 2]], KEYS[[3, 4]])
    plain = answer(served, inputs)
    inputs["diversity"][1] = 0.8
    diverse = answer(served, inputs)
    assert diverse["item_keys"][0].tolist() == plain["item_keys"][0].tolist()
    assert diverse["scores"][0].tolist() == plain["scores"][0].tolist()
    assert diverse["item_keys"][1].tolist() != plain["item_keys"][1].tolist()
    assert diverse["item_keys"][1, 0] == plain["item_keys"][1, 0]  # the best one stays the best


def test_the_scores_of_a_ranking_network_are_probabilities():
    got = answer(Served(full(True), ITEMS, CATEGORIES, page_size=10), varied())["scores"]
    assert ((got >= 0) & (got <= 1)).all()


def test_an_item_is_not_recommended_before_it_is_published():
    model = full(False)
    late = set(KEYS[model.facts.published[1:] > 1_700_000_001].tolist())
    served, inputs = Served(model, ITEMS, CATEGORIES, page_size=30), request(KEYS[[1]])
    inputs["user_features"] = np.zeros((1, 2), np.int64)
    pages = []
    for time in (1_700_000_001, 1_701_000_000):
        inputs["request_time"][:] = time
        pages.append(set(answer(served, inputs)["item_keys"][0].tolist()))
    assert late
    assert pages[0].isdisjoint(late)
    assert late <= pages[1]
