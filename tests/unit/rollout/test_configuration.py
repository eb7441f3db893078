"""Which versions `config.pbtxt` lists, and that nobody's change of it is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from inference.model_config import PROFILES, build_config, to_text, versions_of
from inference.repository import read_config
from inference.signature import Signature, Tensor
from rollout.configuration import config_lock, prepare, read_versions, set_versions
from rollout.errors import NoSuchVersion
from rollout.workbench import workbench

SIGNATURE = Signature((Tensor("history_keys", "int64", (8,)),), (Tensor("scores", "float32", (10,)),))
CONFIG = build_config("recommender", SIGNATURE, PROFILES["cpu"], [1])


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """Versions 1 and 2, the first one listed."""
    folder = tmp_path / "recommender"
    for version in ("1", "2"):
        (folder / version).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(to_text(CONFIG))
    return folder


def test_the_versions_are_those_that_were_set_and_nothing_else_changes(model_folder: Path) -> None:
    assert read_versions(model_folder) == [1]
    set_versions(model_folder, [2, 1])
    assert read_versions(model_folder) == [2, 1]
    set_versions(model_folder, [1])
    assert read_config(model_folder) == CONFIG


def test_nothing_new_lies_in_the_models_folder_after_a_change(model_folder: Path) -> None:
    before = {path.name for path in model_folder.iterdir()}
    set_versions(model_folder, [1, 2])
    assert {path.name for path in model_folder.iterdir()} == before


def test_a_version_that_is_not_there_is_refused(model_folder: Path) -> None:
    with pytest.raises(NoSuchVersion, match="has no version 3"):
        set_versions(model_folder, [1, 3])
    assert read_versions(model_folder) == [1]


def test_before_anything_is_published_nothing_can_be_set(tmp_path: Path) -> None:
    assert read_versions(tmp_path / "recommender") == []
    with pytest.raises(NoSuchVersion, match="publish a version first"):
        set_versions(tmp_path / "recommender", [1])


def waits_for_lock(inode: int) -> bool:
    """Whether somebody waits for a lock of this file."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


def test_a_change_waits_for_the_one_before(model_folder: Path) -> None:
    change = threading.Thread(target=set_versions, args=(model_folder, [1, 2]))
    with config_lock(model_folder):
        change.start()
        inode = (workbench(model_folder) / "config.lock").stat().st_ino
        deadline = time.monotonic() + 30
        while not waits_for_lock(inode):
            assert time.monotonic() < deadline, "it does not wait"
        assert read_versions(model_folder) == [1]
    change.join()
    assert read_versions(model_folder) == [1, 2]


def test_the_configuration_of_a_publish_that_was_killed_is_put_in_force_before_a_change(
    model_folder: Path,
) -> None:
    other = build_config("recommender", SIGNATURE, PROFILES["gpu"], [1])
    prepare(model_folder, 3, other)
    (model_folder / "3").mkdir()
    set_versions(model_folder, [1, 3])
    config = read_config(model_folder)
    assert config is not None
    assert versions_of(config) == [1, 3]
    assert config.instance_group == other.instance_group


def test_the_configuration_of_a_version_that_never_appeared_is_forgotten(model_folder: Path) -> None:
    prepare(model_folder, 3, build_config("recommender", SIGNATURE, PROFILES["gpu"], [3]))
    set_versions(model_folder, [1])
    (model_folder / "3").mkdir()
    set_versions(model_folder, [1])
    assert read_config(model_folder) == CONFIG
