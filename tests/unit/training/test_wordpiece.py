"""Splitting a text into words and words into pieces."""

from __future__ import annotations

import pytest

from training.wordpiece import WordPiece, words

VOCABULARY = ["[PAD]", "[UNK]", "toy", "##s", "story", "to", "##y", "##ys", "a", "##b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\u00a0\u3000", []),
        ("\x00\ufffd\u200b", []),
        ("Toy Story", ["toy", "story"]),
        ("Amélie: À BIENTÔT", ["amelie", ":", "a", "bientot"]),
        ("Ame\u0301lie", ["amelie"]),
        ("so\u00adft \u200bhyphen", ["soft", "hyphen"]),
        ("Ocean's $11.50 (2001)", ["ocean", "'", "s", "$", "11", ".", "50", "(", "2001", ")"]),
        ("“naïve” — dash…", ["“", "naive", "”", "—", "dash", "…"]),
        ("東京2001年", ["東", "京", "2001", "年"]),
        ("タワー", ["タワー"]),  # kana: one word
        ("İstanbul straße", ["istanbul", "straße"]),
    ],
)
def test_a_text_is_split_into_plain_words(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("toy story", ["toy", "story"]),
        ("toys", ["toy", "##s"]),  # not "to", "##ys": the longest match first
        ("toyz", ["[UNK]"]),  # not "toy", "[UNK]"
        ("toys z toy", ["toy", "##s", "[UNK]", "toy"]),
        ("b", ["[UNK]"]),  # "##b" only goes on
        ("a" + "b" * 99, ["a", *["##b"] * 99]),
        ("a" + "b" * 100, ["[UNK]"]),
        ("", []),
    ],
)
def test_a_word_is_split_into_the_longest_pieces(text: str, pieces: list[str]) -> None:
    assert [VOCABULARY[number] for number in WordPiece(VOCABULARY)(text)] == pieces
