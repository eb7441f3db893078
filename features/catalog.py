"""The catalogue of one model version: what the gateway shows of an item, and the pages it can make by itself.

One LMDB file beside the SavedModel. It is memory-mapped, so all workers of a machine share one copy of it.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from features.schema import item_key

_CACHED_ITEMS = 200_000
_ITEM, _NEIGHBOURS = b"i", b"n"
_CATEGORIES, _POPULAR, _CATEGORY = b"categories", b"popular", b"c"


class CatalogError(Exception):
    """The catalogue file cannot be written or read."""


@dataclass(frozen=True, slots=True)
class CatalogItem:
    """What is shown of an item."""

    item_id: str
    title: str
    categories: tuple[str, ...]
    published: int = 0
    """Unix seconds; it is not shown before. 0: it always was there."""


def write_catalog(
    path: Path,
    *,
    items: Sequence[CatalogItem],
    categories: Sequence[str],
    popular: NDArray[np.int64],
    neighbour_keys: NDArray[np.int64],
    neighbour_scores: NDArray[np.float32],
) -> None:
    """Writes the catalogue file of a version.

    Args:
        path: the file, which must not exist.
        items: every item that the version can return.
        categories: in the order of the model's `allowed_categories` axis.
        popular: int64 `[N]`, keys of all items, most popular first.
        neighbour_keys: int64 `[N, n]`, row i the nearest items of `items[i]`, nearest first, 0 for none.
        neighbour_scores: float32 `[N, n]`.

    Raises:
        CatalogError: two ids have one key, the arrays do not fit the items, the file exists, or it cannot be
            written.
    """
    if path.exists():
        raise CatalogError(f"{path}: exists already")
    keys = [item_key(item.item_id) for item in items]
    by_key = dict(zip(keys, items, strict=True))
    if len(by_key) != len(items):
        raise CatalogError(f"{_collision(items)}: two item ids with one key; rename one of them")
    if len(popular) != len(items) or set(popular.tolist()) != by_key.keys():
        raise CatalogError("popular: must hold the key of every item once")
    if neighbour_keys.shape != neighbour_scores.shape or len(neighbour_keys) != len(items):
        raise CatalogError("neighbour_keys, neighbour_scores: must have one row per item and the same shape")

    category_list = json.dumps(list(categories)).encode()
    ranks_by_category = [
        np.array(ranks, "<i8").tobytes() for ranks in _ranks_by_category(popular, by_key, categories)
    ]
    values = [_encode(item) for item in items]
    # Twice the payload plus a page per entry is more than the tree can need; LMDB trims nothing, so the file
    # is written through a copy that leaves the unused space out.
    payload = neighbour_keys.nbytes + neighbour_scores.nbytes + popular.nbytes + len(category_list)
    payload += sum(map(len, ranks_by_category)) + sum(map(len, values))
    map_size = 2 * payload + mmap.PAGESIZE * (2 * len(items) + len(categories) + 64)
    draft = path.with_name(path.name + ".draft")
    try:
        with lmdb.open(str(draft), subdir=False, map_size=map_size, lock=False) as env:
            with env.begin(write=True) as txn:
                txn.put(_CATEGORIES, category_list)
                txn.put(_POPULAR, np.ascontiguousarray(popular, "<i8").tobytes())
                for place, ranks in enumerate(ranks_by_category):
                    txn.put(_CATEGORY + place.to_bytes(4, "little"), ranks)
                for key, value, near, scores in zip(
                    keys, values, neighbour_keys, neighbour_scores, strict=True
                ):
                    name = key.to_bytes(8, "little", signed=True)
                    txn.put(_ITEM + name, value)
                    count = int(np.count_nonzero(near))
                    txn.put(
                        _NEIGHBOURS + name,
                        near[:count].astype("<i8").tobytes() + scores[:count].astype("<f4").tobytes(),
                    )
            with path.open("xb") as file:
                env.copyfd(file.fileno(), compact=True)
    except lmdb.Error as error:
        path.unlink(missing_ok=True)
        raise CatalogError(f"{path}: the catalogue cannot be written ({error})") from error
    finally:
        draft.unlink(missing_ok=True)


def _encode(item: CatalogItem) -> bytes:
    published = [item.published] if item.published else []
    return json.dumps([item.item_id, item.title, *published, *item.categories], ensure_ascii=False).encode()


def _decode(value: bytes) -> CatalogItem:
    item_id, title, *rest = json.loads(value)
    # A number is no category: files of earlier releases have none.
    published = rest.pop(0) if rest and isinstance(rest[0], int) else 0
    return CatalogItem(item_id, title, tuple(rest), published)


def _ranks_by_category(
    popular: NDArray[np.int64], by_key: dict[int, CatalogItem], categories: Sequence[str]
) -> list[list[int]]:
    """For each category the places of its items in `popular`, ascending."""
    ranks: dict[str, list[int]] = {category: [] for category in categories}
    for rank, key in enumerate(popular.tolist()):
        for category in by_key[key].categories:
            ranks[category].append(rank)
    return list(ranks.values())


def _collision(items: Sequence[CatalogItem]) -> str:
    seen: dict[int, str] = {}
    for item in items:
        if (other := seen.setdefault(item_key(item.item_id), item.item_id)) is not item.item_id:
            return f"{other!r} and {item.item_id!r}"
    raise AssertionError("called without a collision")


class Catalog:
    """Reads a catalogue file. Safe to use from one thread at a time."""

    categories: tuple[str, ...]
    """In the order of the model's `allowed_categories` axis."""
    category_index: dict[str, int]
    """Category to its place on that axis."""
    popular: NDArray[np.int64]
    """int64 `[N]`, keys of all items, most popular first."""

    def __init__(self, path: Path) -> None:
        """Opens `path`.

        Raises:
            CatalogError: the file is missing or is no catalogue.
        """
        try:
            # Nobody writes to a published file, hence no lock file beside it.
            self._env = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, create=False, readahead=False
            )
            self._txn = self._env.begin(buffers=True)
            categories, popular = self._txn.get(_CATEGORIES), self._txn.get(_POPULAR)
        except lmdb.Error as error:
            raise CatalogError(f"{path}: not a readable catalogue ({error})") from error
        if categories is None or popular is None:
            raise CatalogError(f"{path}: not a catalogue: its category list or popularity order is missing")
        self.categories = tuple(json.loads(bytes(categories)))
        self.category_index = {name: index for index, name in enumerate(self.categories)}
        self.popular = np.frombuffer(bytes(popular), "<i8").astype(np.int64)
        self._cache: dict[int, CatalogItem] = {}

    def get(self, key: int) -> CatalogItem | None:
        """The item with this key, None if the version does not have it."""
        if (item := self._cache.get(key)) is not None:
            return item
        value = self._txn.get(_ITEM + key.to_bytes(8, "little", signed=True))
        if value is None:
            return None
        if len(self._cache) >= _CACHED_ITEMS:
            self._cache.clear()
        item = self._cache[key] = _decode(bytes(value))
        return item

    def __contains__(self, key: int) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self.popular)

    def popular_in(self, categories: Sequence[str], count: int) -> NDArray[np.int64]:
        """Keys int64 `[≤ count]` of items in any of the categories, most popular first.

        Categories that the version does not have hold no items.
        """
        ranks = np.empty(0, np.int64)
        for category in categories:
            if (place := self.category_index.get(category)) is None:
                continue
            value = self._txn.get(_CATEGORY + place.to_bytes(4, "little"))
            if value is not None:
                own = np.frombuffer(bytes(value[: count * 8]), "<i8")
                ranks = np.union1d(ranks, own)[:count]
        return self.popular[ranks]

    def neighbours(self, key: int) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Keys int64 `[n]` and scores float32 `[n]` of the nearest items, nearest first; None if unknown."""
        value = self._txn.get(_NEIGHBOURS + key.to_bytes(8, "little", signed=True))
        if value is None:
            return None
        count = len(value) // 12
        keys = np.frombuffer(bytes(value[: count * 8]), "<i8").astype(np.int64)
        scores = np.frombuffer(bytes(value[count * 8 :]), "<f4").astype(np.float32)
        return keys, scores

    def close(self) -> None:
        """Releases the mapping. The catalogue must not be used afterwards."""
        self._txn.abort()
        self._env.close()
