"""What a page is, and making one: from the model's answer, or without it from what is at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.catalog import Catalog, CatalogItem
from features.record import EMPTY_RECORD, UserRecord
from gateway.tracing import Trace

_MOST_LOOKED_AT = 10_000
"""Popular items that a page is looked for among. Beyond that it is not full, with so many to come."""


class PageRequest(NamedTuple):
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
    request_id: str = ""
    came: float = 0.0
    """When, on the clock of `time.perf_counter`, seconds."""
    trace: Trace | None = None
    """If the call is traced."""

    @property
    def plain(self) -> bool:
        """Whether the page may stand for any other one of the user's, should the model be away: it is of now,
        and filtered by the items seen alone."""
        return not (self.categories or self.excluded or self.include_seen or self.time)


class Degraded(Enum):
    """Why a page is not the full answer of the model. The names are those of the .proto."""

    NO = "UNSPECIFIED"
    COLD_START = "COLD_START"
    MODEL_UNAVAILABLE = "MODEL_UNAVAILABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STALE_VECTOR = "STALE_VECTOR"


class Stages(NamedTuple):
    """Milliseconds of each stage of one request."""

    queue: float = 0.0
    features: float = 0.0
    model: float = 0.0
    page: float = 0.0
    total: float = 0.0
    """From when the call came to when its response is written."""


class Page(NamedTuple):
    """What `Recommend` answers."""

    wire: bytes
    """The whole response, serialized: see `wire`."""
    version: int
    """That answered, or whose catalogue the fallback came from."""
    cohort: str
    """That the call belongs to, also if the stable version has answered in the place of another one."""
    degraded: Degraded


class PageItem(NamedTuple):
    """One line of a page."""

    key: int
    item: CatalogItem
    score: float
    reason: CatalogItem | None = None


_page_item: Callable[[Iterable[Any]], PageItem] = partial(tuple.__new__, PageItem)
"""A line of its parts, without Python that each of a page's lines would run."""


def model_page(
    catalog: Catalog, keys: Sequence[int], scores: Sequence[float], reason_keys: Sequence[int] | None
) -> list[PageItem]:
    """The lines of the items that the model answered; it has filtered them.

    `keys`, `scores` and `reason_keys` are equally long, best first; 0 is an empty slot, and no catalogue has
    it.
    """
    items = list(map(catalog.get, keys))
    reasons: Iterable[CatalogItem | None] = repeat(None)
    if reason_keys is not None:
        reasons = [catalog.get(key) if key else None for key in reason_keys]
    lines = map(_page_item, zip(keys, items, scores, reasons, strict=False))
    return list(lines) if all(items) else [line for line in lines if line.item is not None]


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
    # So many that the page is full even if all that is refused stands first; more only if some of these are
    # not published yet.
    popular = _popular(catalog, wanted, request.limit + len(refused))
    items = dict(_passing(catalog, kept, wanted, refused, at))
    # A whole page of them: all that the last page holds may be among them.
    for key, item in islice(_passing(catalog, popular, wanted, refused, at), request.limit):
        items.setdefault(key, item)
    return [PageItem(key, item, 0.0) for key, item in islice(items.items(), request.limit)]


def _popular(catalog: Catalog, categories: tuple[str, ...], count: int) -> Iterator[int]:
    """Keys of popular items, most popular first: `count`, then more, as they are asked for.

    Not the whole of a large catalogue: the event loop waits for what is looked at.
    """
    start, end = 0, count
    while start < end:
        found = catalog.popular_in(categories, end) if categories else catalog.popular[:end]
        yield from found[start:].tolist()
        start, end = len(found), min(4 * end, max(count, _MOST_LOOKED_AT)) if len(found) == end else 0


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
    return [PageItem(key, item, score_of[key]) for key, item in islice(passing, limit)]


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
