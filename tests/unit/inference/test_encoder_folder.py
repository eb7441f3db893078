"""The encoder's folder in the repository: made of the recommender's, and no change to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.encoder_name import encoder_name
from inference.encoder_folder import EncoderFolder
from inference.errors import NothingPublished
from inference.model_config import ENCODER_NICE, from_text
from inference.repository import listed_versions, versions_present
from tests.unit.inference.fake_encoders import list_versions, write_repository


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_repository(tmp_path, range(1, 3), listed="1")


def changes(folder: Path) -> dict[Path, int]:
    """When each file below it last changed in any way, in its number of links too: what Triton looks at."""
    return {path: path.stat().st_ctime_ns for path in (folder, *folder.rglob("*"))}


def test_the_recommenders_files_are_there_and_have_not_changed(model_folder: Path) -> None:
    before = changes(model_folder)
    folder = EncoderFolder(model_folder)
    folder.link(2)
    folder.configure([2])
    version = folder.path / "2"
    assert (version / "model.savedmodel" / "saved_model.pb").read_bytes() == b"tf"
    assert (version / "golden.npz").samefile(model_folder / "2" / "golden.npz")
    assert changes(model_folder) == before
    assert {path.name for path in folder.path.iterdir()} == {"2", "config.pbtxt"}


def test_the_repository_may_be_moved(model_folder: Path, tmp_path: Path) -> None:
    EncoderFolder(model_folder).link(1)
    moved = (tmp_path / "recommender").parent.rename(tmp_path.with_name("moved"))
    assert (moved / "user_encoder" / "1" / "golden.npz").is_file()


def test_what_is_there_stays_and_what_is_something_else_is_replaced(model_folder: Path) -> None:
    folder = EncoderFolder(model_folder)
    folder.link(1)
    made = (folder.path / "1").stat().st_ino
    folder.link(1)
    assert (folder.path / "1").stat().st_ino == made
    (folder.path / "1" / "golden.npz").unlink()
    (folder.path / "1" / "golden.npz").write_bytes(b"of another model")
    folder.link(1)
    assert (folder.path / "1" / "golden.npz").samefile(model_folder / "1" / "golden.npz")
    assert versions_present(folder.path) == [1]


def test_what_a_killed_process_left_half_done_does_not_stand_in_the_way(model_folder: Path) -> None:
    half = model_folder.parent / ".user_encoder" / "linking-1" / "model.savedmodel"
    half.mkdir(parents=True)
    folder = EncoderFolder(model_folder)
    folder.link(1)
    assert (folder.path / "1" / "model.savedmodel" / "saved_model.pb").is_file()
    assert not half.exists()


def test_the_configuration_follows_from_the_recommenders(model_folder: Path) -> None:
    folder = EncoderFolder(model_folder)
    folder.link(1)
    folder.configure([1, 2])
    text = (folder.path / "config.pbtxt").read_text()
    config = from_text(text)
    assert (config.name, config.platform, config.backend) == (
        "user_encoder",
        "tensorflow_savedmodel",
        "tensorflow",
    )
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "TF_SIGNATURE_DEF": "encode",
        "TF_NUM_INTRA_THREADS": "3",
        "WARM_OUTPUT_SETS": "user_vector",
        "CPU_NICE": str(ENCODER_NICE),
    }
    inputs = {tensor.name: (list(tensor.dims), tensor.optional) for tensor in config.input}
    assert inputs == {
        "history_keys": ([-1], False),
        "history_times": ([-1], False),
        "history_types": ([-1], True),
        "request_time": ([1], False),
        "user_features": ([-1], True),
    }
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("user_vector", [-1])]
    assert [group.count for group in config.instance_group] == [1]
    assert listed_versions(folder.path) == [1, 2]
    written = (folder.path / "config.pbtxt").stat().st_ino
    folder.configure([1, 2])
    assert (folder.path / "config.pbtxt").stat().st_ino == written
    list_versions(model_folder, "2")
    folder.configure([2])
    assert listed_versions(folder.path) == [2]


def test_without_a_recommender_there_is_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(NothingPublished):
        EncoderFolder(tmp_path / "recommender").configure([1])


def test_no_two_models_have_one_encoder() -> None:
    names = ["recommender", "user", "shop", "recommender_user_encoder", "user_encoder"]
    encoders = [encoder_name(name) for name in names]
    assert encoders[0] == "user_encoder"
    assert len({*encoders, *names[:3]}) == len(encoders) + 3
