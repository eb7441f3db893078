"""Version numbers only go up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rollout import ledger
from rollout.errors import VersionTaken
from rollout.manifest import hash_files, read_manifest


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Its workbench stands beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def test_the_first_version_is_1(model_folder: Path) -> None:
    assert ledger.choose(model_folder, None) == 1


def test_a_deleted_versions_number_is_not_given_again(model_folder: Path) -> None:
    (model_folder / "3").mkdir()
    ledger.record(model_folder, 3)
    shutil.rmtree(model_folder / "3")
    assert ledger.choose(model_folder, None) == 4
    with pytest.raises(VersionTaken, match=r"was used before.*the next is 4"):
        ledger.choose(model_folder, 3)


def test_a_version_put_there_by_hand_counts(model_folder: Path) -> None:
    (model_folder / "9").mkdir()
    assert ledger.choose(model_folder, None) == 10


def test_a_published_number_is_refused(model_folder: Path) -> None:
    (model_folder / "2").mkdir()
    with pytest.raises(VersionTaken, match="version 2 is published already; leave --version out to get 3"):
        ledger.choose(model_folder, 2)


def test_numbers_may_be_skipped(model_folder: Path) -> None:
    assert ledger.choose(model_folder, 7) == 7


def test_a_broken_ledger_is_not_taken_for_an_empty_one(model_folder: Path) -> None:
    ledger.ledger_file(model_folder).write_text("?")
    with pytest.raises(VersionTaken, match="correct it by hand"):
        ledger.choose(model_folder, None)


def test_the_models_folder_is_left_as_it_is(model_folder: Path) -> None:
    ledger.record(model_folder, 1)
    assert list(model_folder.iterdir()) == []
    assert ledger.choose(model_folder, None) == 2


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
