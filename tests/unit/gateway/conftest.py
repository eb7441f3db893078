from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from features.catalog import Catalog, CatalogItem, write_catalog
from features.schema import item_keys


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Items "0" to "29", popular first, all in "all", even ones in "even"; neighbours: the next three."""
    items = [
        CatalogItem(str(n), f"Title {n}", ("all", "even") if n % 2 == 0 else ("all",)) for n in range(30)
    ]
    keys = item_keys(item.item_id for item in items)
    near = np.stack([np.roll(keys, -shift) for shift in (1, 2, 3)], axis=1)
    write_catalog(
        tmp_path / "catalog.lmdb",
        items=items,
        categories=["all", "even"],
        popular=keys,
        neighbour_keys=near,
        neighbour_scores=np.tile(np.array([0.9, 0.8, 0.7], np.float32), (30, 1)),
    )
    catalog = Catalog(tmp_path / "catalog.lmdb")
    yield catalog
    catalog.close()
