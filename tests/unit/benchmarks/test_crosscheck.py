"""Two generators side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.crosscheck import Seen, table

ROOT = Path(__file__).parents[3]


def run(*words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crosscheck", *words],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


def test_a_row_for_each_and_the_ratio_of_each_round() -> None:
    seen = {
        "Locust": [Seen(99.0, 4.0, 9.0, 0.3), Seen(101.0, 5.0, 10.0, 0.3), Seen(80.0, 6.0, 20.0, 0.4)],
        "h2load": [Seen(100.0, 3.0, 8.0, 0.1), Seen(100.0, 4.0, 8.5, 0.1), Seen(100.0, 3.5, 30.0, 0.1)],
    }
    lines = table(100, seen).splitlines()
    assert lines[2] == "| Locust | 99 (80–101) | 5 (4–6) | 10 (9–20) | 0.3 (0.3–0.4) |"
    assert lines[3] == "| h2load | 100 (100–100) | 3.5 (3–4) | 8.5 (8–30) | 0.1 (0.1–0.1) |"
    assert lines[-1] == "answered, Locust / h2load: 0.99 (0.8–1.01)"


@pytest.mark.parametrize(("words", "said"), [(("--rate", "0"), "--rate"), (("--rounds", "0"), "--rounds")])
def test_what_cannot_be_measured_is_refused(words: tuple[str, ...], said: str) -> None:
    status, text = run(*words)
    assert status == 2
    assert f"{said}: must be from 1 to " in text


def test_without_h2load_it_says_what_to_install(tmp_path: Path) -> None:
    assert run(PATH=str(tmp_path)) == (2, "h2load is not installed (Debian: apt install nghttp2-client)")
