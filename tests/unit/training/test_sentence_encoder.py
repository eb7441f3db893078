"""What stands between a caller and the sentence encoder's own code, with a fake in that code's place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.sentence_encoder import WIDTH, SentenceEncoder


class LengthModel:
    """Turns a text of n characters into the n-th unit vector."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls += 1
        return np.eye(WIDTH, dtype=np.float32)[[len(text) % WIDTH for text in texts]]


def test_texts_without_a_visible_character_get_zeros_and_the_others_their_rows() -> None:
    vectors = SentenceEncoder(LengthModel()).encode(["", "abc", " \t\n\u00a0\u200b", "x", "映画"])
    assert vectors.dtype == np.float32
    assert [row.nonzero()[0].tolist() for row in vectors] == [[], [3], [], [1], [2]]


def test_the_model_is_left_alone_without_a_text() -> None:
    model = LengthModel()
    assert SentenceEncoder(model).encode([]).shape == (0, WIDTH)
    assert not SentenceEncoder(model).encode([" "]).any()
    assert model.calls == 0


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    encoder = SentenceEncoder(LengthModel())
    np.testing.assert_array_equal(encoder.encode(["x" * 4000]), encoder.encode(["x" * 4001]))
