"""The service level of a run in which pages are to be degraded for a while."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.during.level import judged_outside, set_apart
from benchmarks.errors import BenchmarkError
from loadtest.slo import DEFAULT


def test_the_bound_of_degraded_pages_is_set_apart_from_all_others(tmp_path: Path) -> None:
    rest = tmp_path / "rest.toml"
    most = set_apart(DEFAULT, rest)
    assert tomllib.loads(rest.read_text()) | {"degraded_rate": most} == tomllib.loads(DEFAULT.read_text())


def test_a_level_without_that_bound_stays_as_it_is(tmp_path: Path) -> None:
    level = tmp_path / "level.toml"
    level.write_text("p99_ms = 200\nachieved = 0.99\n")
    assert set_apart(level, tmp_path / "rest.toml") is None
    assert tomllib.loads((tmp_path / "rest.toml").read_text()) == {"p99_ms": 200, "achieved": 0.99}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "No such file or directory"),
        ("degraded_rate =", "Invalid value"),
        ("degraded_rate = 5", "degraded_rate: Input should be less than or equal to 1"),
        ("not_a_bound = 5", "not_a_bound: there is no such bound"),
    ],
)
def test_a_wrong_level_is_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    level = tmp_path / "level.toml"
    if text is not None:
        level.write_text(text)
    with pytest.raises(BenchmarkError, match=r"--slo: .*level\.toml") as caught:
        set_apart(level, tmp_path / "rest.toml")
    assert sentence in str(caught.value)


def report(*parts: tuple[int, int, int, int]) -> dict[str, Any]:
    """(first, end, pages, degraded) of each part; what happens is from second 110.4 until 120."""
    names = "first", "end", "pages", "degraded"
    between = [dict(zip(names, part, strict=True)) for part in parts]
    return {
        "marks": [{"at": 110.4, "text": "killed"}, {"at": 120.0, "text": "back"}],
        "between": [part | {"pages": {"count": part["pages"]}} for part in between],
    }


def test_pages_between_the_marks_may_all_be_degraded() -> None:
    said, is_kept = judged_outside(report((100, 110, 60, 0), (110, 120, 60, 60), (120, 130, 40, 1)), 0.01)
    assert is_kept
    assert said == "degraded_rate: of 100 pages before and after it 1, at most 1.000% wanted"


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2)])
def test_pages_before_and_after_them_may_not(before: int, after: int) -> None:
    parts = (100, 110, 60, before), (110, 120, 60, 60), (120, 130, 40, after)
    _, is_kept = judged_outside(report(*parts), 0.01)
    assert not is_kept


def test_a_run_that_ends_with_the_last_mark_is_judged_by_what_was_before() -> None:
    said, is_kept = judged_outside(report((100, 110, 60, 0), (110, 120, 60, 60)), 0.01)
    assert is_kept
    assert "of 60 pages" in said
