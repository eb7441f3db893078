"""Vectors of texts on disk, with an encoder that notes what it is asked."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import numpy as np
import pytest
from numpy.typing import NDArray

from training.text_cache import encode_cached

ROOT = Path(__file__).parents[3]


class NotingEncoder:
    """Vectors that tell texts apart by length and first character."""

    width = 3

    def __init__(self, name: str = "noting-1", before: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.asked: list[str] = []
        self._before = before

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._before()
        self.asked += texts
        return np.array([[len(t), ord(t[:1] or "\0"), 0.5] for t in texts], np.float32).reshape(-1, 3)


def cache_file(folder: Path) -> Path:
    (path,) = folder.glob("*.vectors")
    return path


def test_rows_are_in_the_order_of_the_texts_and_equal_texts_are_encoded_once(tmp_path: Path) -> None:
    encoder = NotingEncoder()
    vectors = encode_cached(encoder, ["toy", "", "film", "toy"], tmp_path / "new")
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[3, 116, 0.5], [0, 0, 0.5], [4, 102, 0.5], [3, 116, 0.5]]
    assert encoder.asked == ["toy", "", "film"]


def test_only_new_texts_are_encoded(tmp_path: Path) -> None:
    encode_cached(NotingEncoder(), ["toy", "film"], tmp_path)
    later = NotingEncoder()
    vectors = encode_cached(later, ["film", "story", "toy"], tmp_path)
    assert (later.asked, vectors[:, 0].tolist()) == (["story"], [4, 5, 3])
    assert encode_cached(later, ["story"], tmp_path).tolist() == [[5, 115, 0.5]]
    assert later.asked == ["story"]


def test_no_texts_are_no_vectors(tmp_path: Path) -> None:
    assert encode_cached(NotingEncoder(), [], tmp_path).shape == (0, 3)


def test_another_encoder_has_vectors_of_its_own(tmp_path: Path) -> None:
    encode_cached(NotingEncoder("noting-1"), ["toy"], tmp_path)
    other = NotingEncoder("noting-2")
    encode_cached(other, ["toy"], tmp_path)
    assert other.asked == ["toy"]


def cut_short(content: bytes) -> bytes:
    return content[:-5]


def one_bit_changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (cut_short, ["films"]),
        (one_bit_changed, ["film"]),
        (lambda content: content + bytes(100), []),
        (lambda content: b"", ["toy", "film", "films"]),
        (lambda content: b"not a cache", ["toy", "film", "films"]),
        (lambda content: b"\n" + content, ["toy", "film", "films"]),
    ],
)
def test_what_is_damaged_is_encoded_again_and_nothing_else(
    tmp_path: Path, damage: Callable[[bytes], bytes], lost: list[str]
) -> None:
    texts = ["toy", "film", "films"]
    before = encode_cached(NotingEncoder(), texts, tmp_path)
    path = cache_file(tmp_path)
    whole = path.stat().st_size
    path.write_bytes(damage(path.read_bytes()))
    for asked in (lost, []):
        encoder = NotingEncoder()
        np.testing.assert_array_equal(encode_cached(encoder, texts, tmp_path), before)
        assert (encoder.asked, path.stat().st_size) == (asked, whole)


KILLED_AT_THE_THIRD_BATCH = """
import os, signal, sys
from pathlib import Path
from tests.unit.training.test_text_cache import MANY, NotingEncoder
from training.text_cache import encode_cached
calls = iter(range(5))
die = lambda: next(calls) == 2 and os.kill(os.getpid(), signal.SIGKILL)
encode_cached(NotingEncoder(before=die), MANY, Path(sys.argv[1]))
"""
MANY = [f"film {i}" for i in range(5000)]


def test_a_killed_process_loses_only_the_batch_it_was_at(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_THE_THIRD_BATCH, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    encoder = NotingEncoder()
    assert encode_cached(encoder, MANY, tmp_path)[:, 0].tolist() == [len(text) for text in MANY]
    assert encoder.asked == MANY[4096:]


def test_of_two_at_once_the_second_waits_and_finds_the_vectors(tmp_path: Path) -> None:
    both_encode = Barrier(2)

    def meet() -> None:
        try:
            both_encode.wait(timeout=0.5)
        except BrokenBarrierError:
            return
        raise AssertionError("both encoded at the same time")

    encoders = [NotingEncoder(before=meet) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda encoder: encode_cached(encoder, ["toy", "film"], tmp_path), encoders))
    assert sorted(encoder.asked for encoder in encoders) == [[], ["toy", "film"]]
    np.testing.assert_array_equal(done[0], done[1])
