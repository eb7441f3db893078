"""Checking requests at the edge: the limits of the .proto, each answered with the name of its field."""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Sequence

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog
from features.record import Event
from features.schema import MAX_ID_BYTES, EventType, item_key
from gateway.errors import InvalidRequest

MAX_LIMIT = 100
MAX_CATEGORIES = 64
MAX_EXCLUDED = 500
MAX_EVENTS = 1000
MAX_REQUEST_ID_BYTES = 128
MAX_SURFACE_BYTES = 64
MAX_WEIGHT = 1e6
CLOCK_SKEW_S = 300

# Characters of what is quoted. A refusal travels as metadata, of which a client takes 8 kB; a character can
# take 12 bytes there.
_SHOWN_NAME = 48
_SHOWN_NAMES = 400

_EVENT_TYPES = {int(kind): kind for kind in EventType}


def check_id(field: str, value: str) -> str:
    """The normal form (NFC) of `value`, if it is a user or item id.

    Raises:
        InvalidRequest: it is empty or longer than 256 UTF-8 bytes, as it came or in its normal form.
    """
    if value.isascii() and 1 <= len(value) <= MAX_ID_BYTES:
        return value
    _check_size(field, value)
    # Stores and models know ids in this form, and a few strings grow by it. Measured before as well: the time
    # that this takes grows with the square of a run of combining marks.
    value = unicodedata.normalize("NFC", value)
    _check_size(field, value)
    return value


def _check_size(field: str, value: str) -> None:
    size = len(value) if value.isascii() else len(value.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidRequest(field, f"must have 1 to {MAX_ID_BYTES} bytes, not {size}")


def check_limit(limit: int) -> int:
    """`limit`, if it is within 1 to 100.

    Raises:
        InvalidRequest: it is not.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest("limit", f"must be from 1 to {MAX_LIMIT}, not {limit}")
    return limit


def check_request_id(value: str) -> str:
    """`value`, if it is empty or a usable request id.

    Raises:
        InvalidRequest: longer than 128 bytes, or with line breaks or other characters that do not print.
    """
    return _check_printable("request_id", value, MAX_REQUEST_ID_BYTES)


def check_surface(value: str) -> str:
    """`value`, if it is empty or can be the name of a surface.

    Raises:
        InvalidRequest: longer than 64 bytes, or with line breaks or other characters that do not print.
    """
    return _check_printable("surface", value, MAX_SURFACE_BYTES)


def _check_printable(field: str, value: str, most_bytes: int) -> str:
    if not value.isprintable():
        raise InvalidRequest(field, "must be printable, without line breaks")
    if len(value) > most_bytes or len(value.encode()) > most_bytes:
        raise InvalidRequest(field, f"must have at most {most_bytes} bytes, not {len(value.encode())}")
    return value


def check_diversity(value: float) -> float:
    """`value`, if it is within 0 to 1.

    Raises:
        InvalidRequest: it is not, or no number.
    """
    if not 0 <= value <= 1:
        raise InvalidRequest("diversity", f"must be a number from 0 to 1, not {value:g}")
    return value


def check_time(field: str, value: int, now: int) -> int:
    """`value`, if it is 0 or Unix seconds up to five minutes after `now`.

    Raises:
        InvalidRequest: it is not.
    """
    if value and not 1 <= value <= now + CLOCK_SKEW_S:
        raise InvalidRequest(
            field,
            f"must be Unix seconds from 1 to {now + CLOCK_SKEW_S} (five minutes from now), or 0 for now, "
            f"not {value}",
        )
    return value


def check_filter(asked: pb.Filter, catalog: Catalog) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The categories asked for and the keys of the items not wanted.

    Raises:
        InvalidRequest: too many of either, an item id that is none, or a category that the version lacks.
    """
    if len(asked.categories) > MAX_CATEGORIES:
        raise InvalidRequest(
            "filter.categories", f"must have at most {MAX_CATEGORIES} entries, not {len(asked.categories)}"
        )
    if len(asked.exclude_item_ids) > MAX_EXCLUDED:
        raise InvalidRequest(
            "filter.exclude_item_ids",
            f"must have at most {MAX_EXCLUDED} entries, not {len(asked.exclude_item_ids)}",
        )
    # As ids: catalogues hold normal forms. What is much longer is no category in any form.
    categories = tuple(
        name if name.isascii() or len(name) > MAX_ID_BYTES else unicodedata.normalize("NFC", name)
        for name in asked.categories
    )
    for index, category in enumerate(categories):
        if category not in catalog.category_index:
            raise InvalidRequest(
                f"filter.categories[{index}]",
                f"{_shortened(category)!r} is no category of the serving version; "
                f"it has {_listed(catalog.categories)}",
            )
    excluded = tuple(
        item_key(check_id(f"filter.exclude_item_ids[{index}]", item_id))
        for index, item_id in enumerate(asked.exclude_item_ids)
    )
    return categories, excluded


def check_events(events: Sequence[pb.Event], catalogs: Sequence[Catalog]) -> list[Event]:
    """The events of a request, if all of them can be stored. Their items are in one of the catalogues.

    Raises:
        InvalidRequest: there are none or too many, or one of them breaks a limit.
    """
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidRequest("events", f"must have 1 to {MAX_EVENTS} entries, not {len(events)}")
    now = int(time.time())
    return [_checked_event(f"events[{index}]", event, now, catalogs) for index, event in enumerate(events)]


def _checked_event(field: str, event: pb.Event, now: int, catalogs: Sequence[Catalog]) -> Event:
    user_id = check_id(f"{field}.user_id", event.user_id)
    item_id = check_id(f"{field}.item_id", event.item_id)
    key = item_key(item_id)
    if not any(key in catalog for catalog in catalogs):
        raise InvalidRequest(
            f"{field}.item_id", f"{item_id!r} is not in the catalogue of any serving version"
        )
    kind = _EVENT_TYPES.get(event.type)
    if kind is None:
        names = ", ".join(name for name in pb.EventType.keys()[1:])
        raise InvalidRequest(f"{field}.type", f"must be one of {names}, not {event.type}")
    when = check_time(f"{field}.time", event.time, now) or now
    weight = event.weight if event.HasField("weight") else 1.0
    if not (math.isfinite(weight) and 0 <= weight <= MAX_WEIGHT):
        raise InvalidRequest(f"{field}.weight", f"must be a number from 0 to {MAX_WEIGHT:g}, not {weight}")
    return Event(user_id, item_id, kind, when, weight)


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else name[:_SHOWN_NAME] + "…"


def _listed(names: Sequence[str]) -> str:
    shown: list[str] = []
    left = _SHOWN_NAMES
    for name in map(_shortened, names):
        left -= len(name)
        if left < 0:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(name)
    return ", ".join(shown) or "none"
