"""WordPiece: a text as the numbers of its pieces of words, as BERT's uncased models read it.

Devlin et al., "BERT", NAACL 2019; the longest match first, as in Wu et al., "Google's Neural Machine
Translation System", 2016. The steps are those of `BertNormalizer`, `BertPreTokenizer` and `WordPiece` of
https://github.com/huggingface/tokenizers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

_LONGEST_WORD = 100
"""Characters; a longer word counts as unknown."""
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""Chinese characters (first, last): each is a word. Kana and Hangul are not among them."""


class WordPiece:
    """Splits texts by one vocabulary, in which a piece that goes on within a word starts with `##`."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._ids = {piece: number for number, piece in enumerate(vocabulary)}
        self._unknown = self._ids["[UNK]"]

    def __call__(self, text: str) -> list[int]:
        """The numbers of the pieces of `text` in order, without [CLS] and [SEP]; none if it has no words."""
        return [number for word in words(text) for number in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._unknown]
        numbers: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    numbers.append(number)
                    start = end
                    break
            else:  # one piece that is missing makes the whole word unknown
                return [self._unknown]
        return numbers


def words(text: str) -> Iterator[str]:
    """The words of a text in lower case without accents; each punctuation mark and ideograph is a word."""
    spaced = "".join(map(_cleaned, text))
    plain = "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
    for run in plain.lower().split():
        start = 0
        for end, character in enumerate(run):
            if _is_punctuation(character):
                if end > start:
                    yield run[start:end]
                yield character
                start = end + 1
        if start < len(run):
            yield run[start:]


def _cleaned(character: str) -> str:
    if character.isascii() and character.isprintable():  # nearly all of them, so they come first
        return character
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    if any(first <= ord(character) <= last for first, last in _IDEOGRAPHS):
        return f" {character} "
    return character


def _is_punctuation(character: str) -> bool:
    # All that ASCII has beside letters, digits and blanks counts, though Unicode calls $ or + symbols.
    return (character.isascii() and not character.isalnum()) or unicodedata.category(character).startswith(
        "P"
    )
