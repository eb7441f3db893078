"""Published versions: found, compared with their manifest, and deleted when nobody needs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from features.settings import Settings
from inference.encoder_folder import EncoderFolder
from inference.repository import versions_present
from rollout import check
from rollout.errors import NoSuchVersion, PreflightFailed
from rollout.manifest import MANIFEST
from rollout.repository import find, newest, prune, published
from rollout.workbench import workbench
from tests.unit.rollout.published import write_version


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    for version in range(1, 8):
        write_version(tmp_path / "recommender", version)
    return tmp_path / "recommender"


def numbers(model_folder: Path) -> list[int]:
    return [each.version for each in published(model_folder)]


def test_the_newest_and_those_in_use_stay(model_folder: Path) -> None:
    assert prune(model_folder, 2, in_use={1, 3}) == [2, 4, 5]
    assert numbers(model_folder) == [1, 3, 6, 7]
    assert prune(model_folder, 2, in_use={1, 3}) == []
    assert prune(model_folder, 100, in_use=()) == []
    assert prune(model_folder, 1, in_use=()) == [1, 3, 6]


def test_encoders_go_with_their_version_and_with_one_that_somebody_deleted(model_folder: Path) -> None:
    encoder = EncoderFolder(model_folder)
    for version in (1, 2, 3, 5, 6, 7):
        encoder.link(version)
    shutil.rmtree(model_folder / "5")
    shutil.rmtree(model_folder / "6")
    assert prune(model_folder, 2, in_use={1, 6}) == [2, 3]
    assert versions_present(encoder.path) == [1, 6, 7]
    assert {path.name for path in workbench(encoder.path).iterdir()} == set()
    assert (model_folder / "7" / "golden.npz").is_file()


def test_what_a_killed_deletion_left_is_deleted_by_the_next(model_folder: Path) -> None:
    leftover = workbench(model_folder) / "removed-3"
    (model_folder / "3").rename(leftover)
    prune(model_folder, 100, in_use=())
    assert not leftover.exists()


def test_a_version_that_is_not_published_is_named_with_those_that_are(
    model_folder: Path, tmp_path: Path
) -> None:
    assert find(model_folder, 2).manifest is not None
    assert newest(model_folder) == 7
    with pytest.raises(NoSuchVersion, match="version 9 is not published; published are: 1, 2, 3"):
        find(model_folder, 9)
    with pytest.raises(NoSuchVersion, match="make publish"):
        newest(tmp_path / "empty")


def test_a_version_as_it_was_published_passes(model_folder: Path) -> None:
    check.check_files(find(model_folder, 2))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda folder: (folder / "golden.npz").write_bytes(b"other"),
            "golden.npz: is not the file that was",
        ),
        (lambda folder: (folder / "model.savedmodel/saved_model.pb").unlink(), "saved_model.pb: is missing"),
        (lambda folder: (folder / "model.savedmodel/more").write_bytes(b""), "more: is not in the manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "has no manifest.json that can be read"),
    ],
)
def test_a_file_that_is_not_as_it_was_published_is_named(
    model_folder: Path, spoil: object, sentence: str
) -> None:
    spoil(model_folder / "2")  # type: ignore[operator]  # a lambda
    with pytest.raises(PreflightFailed, match=sentence):
        check.check_files(find(model_folder, 2))


def test_a_version_that_the_machine_has_no_room_for_is_refused_with_the_figures(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "var", model_repository=tmp_path)
    check.check_memory(find(model_folder, 2), settings)
    monkeypatch.setattr(check, "free_bytes", lambda: 100 << 20)
    with pytest.raises(
        PreflightFailed, match="needs about 1400 MiB beside the stable version, and 100 MiB are free"
    ):
        check.check_memory(find(model_folder, 2), settings)
    elsewhere = settings.model_copy(update={"triton_address": "triton:8001"})
    check.check_memory(find(model_folder, 2), elsewhere)
