"""Who may look into a state folder."""

from __future__ import annotations

from pathlib import Path

from features.state_folder import make_state_folder


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_state_folder(tmp_path / "a" / "var")
    assert (tmp_path / "a" / "var").stat().st_mode & 0o777 == 0o700


def test_one_that_is_there_stays_as_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var").chmod(0o2750)
    make_state_folder(tmp_path / "var")
    assert (tmp_path / "var").stat().st_mode & 0o7777 == 0o2750
