"""The served graph with an index: what it found is answered as the model does, and what is wrong is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.training.asking import CATEGORIES, ITEMS, KEYS, N, answer, full, varied
from training.golden import candidates_of, largest_difference
from training.index import build_index
from training.index_kinds import Kinds
from training.serving import Served


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
