from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import features.catalog
from features.catalog import Catalog, CatalogError, CatalogItem, write_catalog
from features.schema import item_key, item_keys

ITEMS = [
    CatalogItem("a", "Ä title", ("x", "y")),
    CatalogItem("b", "", (), published=1_700_000_000),
    CatalogItem("用户", "クレヨン", ("y",), published=-1),
]
KEYS = item_keys(item.item_id for item in ITEMS)


def write(path: Path, items: list[CatalogItem] = ITEMS, popular: list[int] | None = None) -> None:
    near = np.zeros((len(items), 2), np.int64)
    near[0] = KEYS[2], KEYS[1]
    near[1, 0] = KEYS[0]
    write_catalog(
        path,
        items=items,
        categories=["y", "x"],
        popular=np.array(KEYS[::-1] if popular is None else popular, np.int64),
        neighbour_keys=near,
        neighbour_scores=np.array([[0.9, 0.5]] * len(items), np.float32),
    )


def test_a_catalogue_reads_back_as_it_was_written_and_leaves_no_other_file(tmp_path: Path) -> None:
    write(tmp_path / "catalog.lmdb")
    catalog = Catalog(tmp_path / "catalog.lmdb")
    assert [catalog.get(int(key)) for key in KEYS] == ITEMS
    assert catalog.categories == ("y", "x")
    assert catalog.category_index == {"y": 0, "x": 1}
    assert catalog.popular.tolist() == KEYS[::-1].tolist()
    assert len(catalog) == 3
    assert int(KEYS[0]) in catalog
    assert item_key("no such") not in catalog
    assert catalog.neighbours(item_key("no such")) is None
    keys, scores = catalog.neighbours(int(KEYS[0])) or ([], [])
    assert (list(keys), [round(float(s), 2) for s in scores]) == ([KEYS[2], KEYS[1]], [0.9, 0.5])
    [only], _ = catalog.neighbours(int(KEYS[1])) or ([0], [])
    assert only == KEYS[0]
    catalog.close()
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.lmdb"]


def test_categories_that_look_like_numbers_are_no_times(tmp_path: Path) -> None:
    items = [CatalogItem("a", "A", ("1999", "7")), CatalogItem("b", "B", ("7",), published=5), ITEMS[2]]
    write_catalog(
        tmp_path / "catalog.lmdb",
        items=items,
        categories=["1999", "7", "y"],
        popular=KEYS,
        neighbour_keys=np.zeros((3, 0), np.int64),
        neighbour_scores=np.zeros((3, 0), np.float32),
    )
    catalog = Catalog(tmp_path / "catalog.lmdb")
    assert [catalog.get(int(key)) for key in KEYS] == items
    catalog.close()


def test_popular_items_of_categories_are_merged_by_popularity_and_cut(tmp_path: Path) -> None:
    write(tmp_path / "catalog.lmdb")
    catalog = Catalog(tmp_path / "catalog.lmdb")
    third, first = KEYS[2], KEYS[0]
    assert catalog.popular_in(["x"], 10).tolist() == [first]
    assert catalog.popular_in(["x", "y"], 10).tolist() == [third, first]
    assert catalog.popular_in(["y", "x"], 1).tolist() == [third]
    assert catalog.popular_in(["no such"], 10).tolist() == []
    catalog.close()


def test_two_ids_with_one_key_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        features.catalog, "item_key", lambda item_id: 7 if item_id in "ab" else item_key(item_id)
    )
    with pytest.raises(CatalogError, match="'a' and 'b': two item ids with one key"):
        write(tmp_path / "catalog.lmdb")
    assert not list(tmp_path.iterdir())


def test_a_popularity_order_that_misses_an_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"^popular: "):
        write(tmp_path / "catalog.lmdb", popular=[KEYS[0], KEYS[0], KEYS[1]])


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    write(tmp_path / "catalog.lmdb")
    with pytest.raises(CatalogError, match="exists already"):
        write(tmp_path / "catalog.lmdb")


def test_long_texts_and_many_categories_fit(tmp_path: Path) -> None:
    """4,000 entries of categories whose names are long, in letters of three bytes, and no other item has."""
    items = [
        CatalogItem(item.item_id, item.title, tuple(f"{item.item_id} {n} " + "類" * 400 for n in range(2000)))
        for item in ITEMS[:2]
    ]
    categories = [category for item in items for category in item.categories]
    keys = item_keys(item.item_id for item in items)
    none = np.zeros((2, 0))
    write_catalog(
        tmp_path / "catalog.lmdb",
        items=items,
        categories=categories,
        popular=keys,
        neighbour_keys=none.astype(np.int64),
        neighbour_scores=none.astype(np.float32),
    )
    catalog = Catalog(tmp_path / "catalog.lmdb")
    assert [catalog.get(int(key)) for key in keys] == items
    assert catalog.categories == tuple(categories)
    catalog.close()


def test_a_catalogue_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "catalog.lmdb.draft").write_bytes(b"no database " * 1000)
    with pytest.raises(CatalogError, match=r"catalog\.lmdb: the catalogue cannot be written"):
        write(tmp_path / "catalog.lmdb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"no catalogue", b"\0" * 8192])
def test_what_is_no_catalogue_is_refused_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "catalog.lmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"catalog\.lmdb"):
        Catalog(path)
