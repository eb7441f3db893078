"""Version numbers only go up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rollout import ledger
from rollout.errors import VersionTaken
from rollout.manifest import hash_files, read_manifest


def test_the_first_version_is_1(tmp_path: Path) -> None:
    assert ledger.choose(tmp_path, None) == 1


def test_a_deleted_versions_number_is_not_given_again(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    ledger.record(tmp_path, 3)
    shutil.rmtree(tmp_path / "3")
    assert ledger.choose(tmp_path, None) == 4
    with pytest.raises(VersionTaken, match=r"was used before.*the next is 4"):
        ledger.choose(tmp_path, 3)


def test_a_version_put_there_by_hand_counts(tmp_path: Path) -> None:
    (tmp_path / "9").mkdir()
    assert ledger.choose(tmp_path, None) == 10


def test_a_published_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    with pytest.raises(VersionTaken, match="version 2 is published already; leave --version out to get 3"):
        ledger.choose(tmp_path, 2)


def test_numbers_may_be_skipped(tmp_path: Path) -> None:
    assert ledger.choose(tmp_path, 7) == 7


def test_a_broken_ledger_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / ledger.LEDGER).write_text("?")
    with pytest.raises(VersionTaken, match="correct it by hand"):
        ledger.choose(tmp_path, None)


def test_only_numbered_folders_are_versions(tmp_path: Path) -> None:
    for name in ("10", "2", "warmup", ".publishing-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").touch()
    assert ledger.versions_present(tmp_path) == [2, 10]


def test_a_hash_changes_with_the_file_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    (tmp_path / "left_out").write_text("1")
    before = hash_files(tmp_path, ("model", "b"))
    (tmp_path / "model" / "deep" / "a").write_text("2")
    after = hash_files(tmp_path, ("model", "b"))
    assert before.keys() == after.keys() == {"model/deep/a", "b"}
    assert [name for name in before if before[name] != after[name]] == ["model/deep/a"]


def test_a_version_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
