"""MiniLM with tiny random weights, against the same network written with numpy, one text at a time."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from numpy.typing import NDArray

from training.minilm import MiniLm

Floats = NDArray[np.float32]
VOCABULARY = ["[PAD]", "x", "[UNK]", "[CLS]", "[SEP]", "toy", "story", "##s", "film"]
START, END = 3, 4
WIDTH, HEADS, LAYERS, HIDDEN, POSITIONS = 12, 3, 2, 20, 300


@pytest.fixture(scope="module")
def weights() -> dict[str, Floats]:
    rng = np.random.default_rng(7)

    def dense(name: str, out: int, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.LayerNorm.weight": (WIDTH,), f"{name}.LayerNorm.bias": (WIDTH,)}

    shapes = norm("embeddings") | {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{layer}.attention.{part}", WIDTH, WIDTH)
        shapes |= dense(f"{layer}.intermediate.dense", HIDDEN, WIDTH)
        shapes |= dense(f"{layer}.output.dense", WIDTH, HIDDEN)
        shapes |= norm(f"{layer}.attention.output") | norm(f"{layer}.output")
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def encoder(weights: dict[str, Floats]) -> MiniLm:
    return MiniLm(weights, VOCABULARY, heads=HEADS)


def by_numpy(w: dict[str, Floats], pieces: list[int]) -> Floats:
    """float32 `[W]`: the vector of one text, given with [CLS] and [SEP]; no batch and no padding."""

    def dense(x: Floats, name: str) -> Floats:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Floats, name: str) -> Floats:
        scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]

    tables = {name: w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = norm(
        tables["word"][pieces] + tables["position"][: len(pieces)] + tables["token_type"][0], "embeddings"
    )
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for columns in np.split(np.arange(WIDTH), HEADS):
            e = np.exp(q[:, columns] @ k[:, columns].T / np.sqrt(WIDTH // HEADS))
            heads.append(e / e.sum(1, keepdims=True) @ v[:, columns])
        joined = dense(np.concatenate(heads, 1), f"{layer}.attention.output.dense")
        x = norm(x + joined, f"{layer}.attention.output")
        h = dense(x, f"{layer}.intermediate.dense")
        h = h * 0.5 * (1 + np.vectorize(erf)(h / np.sqrt(2)))
        x = norm(x + dense(h, f"{layer}.output.dense"), f"{layer}.output")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_vectors_are_those_of_the_network_computed_with_numpy(
    encoder: MiniLm, weights: dict[str, Floats]
) -> None:
    texts = ["film", "Toys story film toys", "toy story"]  # of three lengths, the longest not last
    vectors = encoder.encode(texts)
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, WIDTH))
    for vector, pieces in zip(vectors, [[8], [5, 7, 6, 8, 5, 7], [5, 6]], strict=True):
        np.testing.assert_allclose(vector, by_numpy(weights, [START, *pieces, END]), atol=1e-5)


def test_a_text_counts_up_to_256_pieces(encoder: MiniLm, weights: dict[str, Floats]) -> None:
    expected = by_numpy(weights, [START, *[5, 6] * 127, END])
    np.testing.assert_allclose(encoder.encode(["toy story " * 200])[0], expected, atol=1e-5)


def test_many_texts_get_the_vectors_that_each_gets_alone(encoder: MiniLm) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(["toy", "story", "film"], rng.integers(0, 250))) for _ in range(90)]
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=1e-5)


def test_an_empty_text_gets_zeros(encoder: MiniLm) -> None:
    vectors = encoder.encode(["", "film", " \t\u200b"])
    assert not vectors[[0, 2]].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-5)


def test_no_texts_are_no_vectors(encoder: MiniLm) -> None:
    assert encoder.encode([]).shape == (0, WIDTH)
