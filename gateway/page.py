"""Making a page: from the model's answer, or without it from what is at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
    request: PageRequest,
    catalog: Catalog,
    record: UserRecord,
    keys: Iterable[int],
    scores: Iterable[float],
    reason_keys: Iterable[int] | None,
    exclude_width: int,
) -> list[PageItem]:
    """The first `limit` items that the model answered; it has filtered them already.

    Only if a user has more seen and excluded items than the model takes (`exclude_width`) is anything left to
    filter here.
    """
    refused: frozenset[int] = frozenset()
    if len(request.excluded) + (0 if request.include_seen else len(record.keys)) > exclude_width:
        refused = _refused(request, record)
    page: list[PageItem] = []
    reasons = iter(reason_keys) if reason_keys is not None else None
    for key, score in zip(keys, scores, strict=True):
        reason_key = next(reasons) if reasons is not None else 0
        # Key 0 is an empty slot, and no catalogue has it.
        if key and key not in refused and (item := catalog.get(key)) is not None:
            page.append(PageItem(item, score, catalog.get(reason_key) if reason_key else None))
            if len(page) == request.limit:
                break
    return page


def fallback_page(
    request: PageRequest, catalog: Catalog, record: UserRecord = EMPTY_RECORD
) -> list[PageItem]:
    """The user's last page as far as it is kept, then popular items; filtered like the model's page.

    Scores are 0: nothing was scored.
    """
    refused = _refused(request, record)
    wanted = frozenset(request.categories)
    page: list[PageItem] = []
    taken: set[int] = set()
    for key in _candidates(catalog, record):
        if key in refused or key in taken or (item := catalog.get(key)) is None:
            continue
        if wanted and wanted.isdisjoint(item.categories):
            continue
        taken.add(key)
        page.append(PageItem(item, 0.0))
        if len(page) == request.limit:
            break
    return page


def _candidates(catalog: Catalog, record: UserRecord) -> Iterator[int]:
    if record.answer is not None:
        yield from record.answer.page_keys.tolist()
    yield from map(int, catalog.popular)


def _refused(request: PageRequest, record: UserRecord) -> frozenset[int]:
    seen = [] if request.include_seen else record.keys.tolist()
    return frozenset(request.excluded).union(seen)
