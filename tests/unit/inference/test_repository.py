"""Which versions the repository on disk says are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import UnfitModel
from inference.repository import listed_versions, versions_present


def write_config(folder: Path, policy: str) -> None:
    (folder / "config.pbtxt").write_text(f'name: "recommender" version_policy {{ {policy} }}')


def test_only_numbered_folders_are_versions(tmp_path: Path) -> None:
    for name in ("10", "2", "1.bak", "drafts"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").touch()
    assert versions_present(tmp_path) == [2, 10]


def test_the_listed_versions_keep_their_order(tmp_path: Path) -> None:
    write_config(tmp_path, "specific { versions: [7, 3] }")
    assert listed_versions(tmp_path) == [7, 3]


def test_a_configuration_of_an_earlier_release_serves_the_newest_version(tmp_path: Path) -> None:
    for name in ("9", "10"):
        (tmp_path / name).mkdir()
    write_config(tmp_path, "latest { num_versions: 1 }")
    assert listed_versions(tmp_path) == [10]


def test_where_nothing_is_published_nothing_is_listed(tmp_path: Path) -> None:
    assert listed_versions(tmp_path / "recommender") == []


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text("flavour: 1")
    with pytest.raises(UnfitModel, match=r"config.pbtxt: is no model configuration \(.*flavour"):
        listed_versions(tmp_path)
