"""Making a page: from the model's answer, or without it from what is at hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
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
    surface: str = ""
    diversity: float = 0.0
    """0: relevance alone, to 1."""
    time: int = 0
    """Unix seconds that it is asked for; 0: now."""

    @property
    def plain(self) -> bool:
        """Whether the page is the user's own one: of now, of no surface, filtered by the items seen alone."""
        filtered = self.categories or self.excluded or self.include_seen
        return not (filtered or self.surface or self.diversity or self.time)


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
    request: PageRequest,
    catalog: Catalog,
    record: UserRecord = EMPTY_RECORD,
    consumes: NDArray[np.bool_] | None = None,
) -> list[PageItem]:
    """The user's last page as far as it is kept, then popular items; filtered like the model's page, and
    without items that are published later.

    Scores are 0: nothing was scored. `consumes` is that of the catalogue's version.
    """
    seen = [] if request.include_seen else record.consumed(consumes).tolist()
    refused = frozenset((*request.excluded, *seen))
    wanted, at = request.categories, request.time or int(time.time())
    kept = record.answer.page_keys.tolist() if record.answer is not None else []
    # So many that the page is full even if all that is refused stands first: never the whole catalogue.
    enough = request.limit + len(refused)
    while True:
        popular = catalog.popular_in(wanted, enough) if wanted else catalog.popular[:enough]
        # A dictionary, to keep the first of each in order.
        candidates = dict.fromkeys((*kept, *popular.tolist()))
        passing = (PageItem(item, 0.0) for _, item in _passing(catalog, candidates, wanted, refused, at))
        page = list(islice(passing, request.limit))
        if len(page) == request.limit or len(popular) < enough:
            return page
        enough *= 4  # some that are not published yet stand first


def similar_page(
    catalog: Catalog, key: int, limit: int, categories: tuple[str, ...], excluded: tuple[int, ...]
) -> list[PageItem] | None:
    """The nearest items that pass the filter and are published, nearest first, with their cosines.

    None: an unknown item.
    """
    neighbours = catalog.neighbours(key)
    if neighbours is None:
        return None
    keys, scores = (values.tolist() for values in neighbours)
    score_of = dict(zip(keys, scores, strict=True))
    passing = _passing(catalog, keys, categories, frozenset(excluded), int(time.time()))
    return [PageItem(item, score_of[key]) for key, item in islice(passing, limit)]


def _passing(
    catalog: Catalog, keys: Iterable[int], categories: tuple[str, ...], refused: frozenset[int], at: int
) -> Iterator[tuple[int, CatalogItem]]:
    wanted = frozenset(categories)
    for key in keys:
        item = None if key in refused else catalog.get(key)
        if item is None or item.published > at:
            continue
        if not (wanted and wanted.isdisjoint(item.categories)):
            yield key, item
