"""What others say happened during a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loadtest._marks import Mark, check, read_marks

NOW = 1_700_000_100.0


def test_marks_are_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    path.write_text("1700000020.5 Triton is back\n\n1700000010 Triton is killed \n")
    assert read_marks(path, NOW) == (
        [Mark(1_700_000_010.0, "Triton is killed"), Mark(1_700_000_020.5, "Triton is back")],
        [],
    )


@pytest.mark.parametrize(("ahead_s", "is_mark"), [(0.9, True), (1.1, False)])
def test_a_clock_may_be_a_second_ahead(tmp_path: Path, ahead_s: float, is_mark: bool) -> None:
    path = tmp_path / "marks"
    path.write_text(f"{NOW + ahead_s} now\n")
    marks, problems = read_marks(path, NOW)
    assert (len(marks), len(problems)) == ((1, 0) if is_mark else (0, 1))


@pytest.mark.parametrize(
    "line",
    [
        "soon Triton is killed",
        "1700000010",
        "nan Triton is killed",
        "1700000010000 too many digits",
        "-5 before",
    ],
)
def test_a_line_that_is_no_mark_is_named_with_its_number_and_costs_no_other(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "marks"
    path.write_text(f"1700000010 first\n{line}\n1700000020 last\n")
    marks, problems = read_marks(path, NOW)
    assert [mark.text for mark in marks] == ["first", "last"]
    [problem] = problems
    assert f"{path}, line 2: " in problem
    assert line in problem


def test_a_file_that_has_gone_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    assert read_marks(path, NOW) == ([], [f"{path} cannot be read: No such file or directory"])


def test_to_check_leaves_all_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[str] = []
    unlink = os.unlink

    def note(path: Any, **options: Any) -> None:
        gone.append(str(path))
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", note)
    path = tmp_path / "marks"
    check(path)
    assert not path.exists()
    assert str(path) not in gone, "not even for a moment: who waits for it would think that all users call"
    path.write_text("1700000010 first\n")
    check(path)
    assert path.read_text() == "1700000010 first\n"
    with pytest.raises(ValueError, match=r"--marks: .*nowhere/marks cannot be used: No such file"):
        check(tmp_path / "nowhere" / "marks")
