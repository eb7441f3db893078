"""Making a page: from the model's answer, or without it from what is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog, CatalogItem
from features.record import EMPTY_RECORD, UserRecord


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A checked `Recommend` request."""

    user_id: str
    limit: int
    categories: tuple[str, ...] = ()
    """Any of these; empty: all."""
    excluded: tuple[int, ...] = ()
    """Item keys not wanted."""
    include_seen: bool = False
    explain: bool = False

    @property
    def plain(self) -> bool:
        """Whether the page is the user's own one, with no filter but the items seen."""
        return not (self.categories or self.excluded or self.include_seen)


class PageItem(NamedTuple):
    """One line of a page. A tuple, since a frozen dataclass takes four times as long to make."""

    item: CatalogItem
    score: float
    reason: CatalogItem | None = None


def model_page(
    catalog: Catalog,
    keys: NDArray[np.int64],
    scores: NDArray[np.float32],
    reason_keys: NDArray[np.int64] | None,
) -> list[PageItem]:
    """The lines of the items that the model answered; it has filtered them.

    `keys`, `scores` and `reason_keys` are `[limit]`, best first; 0 is an empty slot, and no catalogue has it.
    """
    reasons = reason_keys.tolist() if reason_keys is not None else repeat(0)
    return [
        PageItem(item, score, catalog.get(reason) if reason else None)
        for key, score, reason in zip(keys.tolist(), scores.tolist(), reasons, strict=False)
        if (item := catalog.get(key)) is not None
    ]


def fallback_page(
    request: PageRequest, catalog: Catalog, record: UserRecord = EMPTY_RECORD
) -> list[PageItem]:
    """The user's last page as far as it is kept, then popular items; filtered like the model's page.

    Scores are 0: nothing was scored.
    """
    refused = _refused(request, record)
    wanted = frozenset(request.categories)
    # So many that the page is full even if all that is refused stands first: never the whole catalogue.
    enough = request.limit + len(refused)
    popular = catalog.popular_in(request.categories, enough) if wanted else catalog.popular[:enough]
    kept = record.answer.page_keys.tolist() if record.answer is not None else []
    page: list[PageItem] = []
    taken: set[int] = set()
    for key in (*kept, *popular.tolist()):
        if key in refused or key in taken or (item := catalog.get(key)) is None:
            continue
        if wanted and wanted.isdisjoint(item.categories):
            continue
        taken.add(key)
        page.append(PageItem(item, 0.0))
        if len(page) == request.limit:
            break
    return page


def _refused(request: PageRequest, record: UserRecord) -> frozenset[int]:
    seen = [] if request.include_seen else record.keys.tolist()
    return frozenset(request.excluded).union(seen)
