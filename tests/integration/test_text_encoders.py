"""The text encoders from the package registry: what each promises, and figures that their makers publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.fake_registry import no_registry
from training.text_encoder import TextEncoder, TextEncoderKind, open_text_encoder

KINDS: list[TextEncoderKind] = ["multilingual", "minilm"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def encoders(cache: Path) -> dict[TextEncoderKind, TextEncoder]:
    return {kind: open_text_encoder(kind, cache) for kind in KINDS}


def test_each_has_a_name_and_a_width_of_its_own(encoders: dict[TextEncoderKind, TextEncoder]) -> None:
    assert {kind: (encoder.name, encoder.width) for kind, encoder in encoders.items()} == {
        "multilingual": ("use-multilingual-3-0.2.1", 512),
        "minilm": ("all-minilm-l6-v2-0.1.0", 384),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_length_one_and_empty_texts_get_zeros(
    encoders: dict[TextEncoderKind, TextEncoder], kind: TextEncoderKind
) -> None:
    texts = ["Toy Story (1995)", "", "x", " \n\u3000", "東京物語", "😀", "word " * 9999, "w" * 9999]
    vectors = encoders[kind].encode(texts)
    assert (vectors.dtype, vectors.shape) == (np.float32, (8, encoders[kind].width))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 0, 1, 1, 1, 1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_does_not_depend_on_the_texts_beside_it(
    encoders: dict[TextEncoderKind, TextEncoder], kind: TextEncoderKind
) -> None:
    texts = ["Heat (1995) Action Crime Thriller", "Alien", "", "A long walk home. " * 20]
    alone = np.concatenate([encoders[kind].encode([text]) for text in texts])
    np.testing.assert_allclose(encoders[kind].encode(texts), alone, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_like_texts_have_like_vectors(
    encoders: dict[TextEncoderKind, TextEncoder], kind: TextEncoderKind
) -> None:
    asked, like, unlike = encoders[kind].encode(
        [
            "A space crew is hunted by a monster",
            "Astronauts are chased by an alien creature",
            "A cook inherits a small restaurant in Paris",
        ]
    )
    assert asked @ like > 0.2 + asked @ unlike


def test_the_multilingual_one_knows_a_sentence_by_its_meaning(
    encoders: dict[TextEncoderKind, TextEncoder],
) -> None:
    asked, *others = encoders["multilingual"].encode(
        [
            "The dog sleeps in the garden",
            "Der Hund schläft im Garten",
            "El perro duerme en el jardín",
            "犬は庭で寝ている",
            "The bank raises its rates",
        ]
    )
    *translations, unlike = (float(asked @ other) for other in others)
    assert min(translations) > 0.3 + unlike


def test_the_multilingual_one_gives_the_similarity_that_its_package_states(
    encoders: dict[TextEncoderKind, TextEncoder],
) -> None:
    a, b = encoders["multilingual"].encode(["gato preto correu", "o gato preto correu pelo jardim"])
    assert a @ b == pytest.approx(0.82, abs=0.005)


def test_minilm_gives_the_similarities_that_its_makers_publish(
    encoders: dict[TextEncoderKind, TextEncoder],
) -> None:
    # https://sbert.net/docs/quickstart.html, computed there with PyTorch from the same weights.
    vectors = encoders["minilm"].encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("encoders")
def test_once_fetched_no_registry_is_needed(cache: Path, kind: TextEncoderKind) -> None:
    assert open_text_encoder(kind, cache, download=no_registry).encode(["film"]).any()
