"""The user record: all that the online store keeps of one user, as one value that is read whole.

Bytes, little-endian: the header `_HEADER`, then keys `<i8[n]`, times `<i8[n]`, page keys `<i8[p]`,
weights `<f4[n]`, vector `<f4[d]`, types `u1[n]`, and the attributes as UTF-8 JSON. Events are in order of
time, newest last. A value with another magic or format number is refused, never guessed at.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.schema import EventType, item_key

# magic, format, events n, attribute bytes a, vector width d, page length p, whether the page is current,
# revision, revision the answer is of, model version of the answer, Unix seconds of the answer, born,
# nanoseconds since when the answer is behind
_HEADER = struct.Struct("<2sHIIHHIqqqqqq")
_MAGIC, _FORMAT = b"RU", 3
_EARLIER_HEADER, _EARLIER_FORMAT = struct.Struct("<2sHIIHHIqqqq"), 2
"""Of earlier releases, without the last two; read, and written anew with the next change."""
_EARLIER = struct.pack("<2sH", _MAGIC, _EARLIER_FORMAT)
_NS = 1_000_000_000


class RecordError(Exception):
    """Bytes that are no user record of a known format."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did with an item."""

    user_id: str
    item_id: str
    type: EventType
    time: int
    """Unix seconds."""
    weight: float = 1.0


class CachedAnswer(NamedTuple):
    """What the model answered for a user: a cache that may be dropped at any time."""

    version: int
    """Model version that answered; of no use to any other one."""
    revision: int
    """`UserRecord.revision` of the history it was computed from."""
    computed_at: int
    """Unix seconds."""
    vector: NDArray[np.float32]
    """float32 `[D]`."""
    page_keys: NDArray[np.int64]
    """int64 `[P]`, the user's own unfiltered page, best first; empty if none was computed."""
    page_is_current: bool
    """Whether the page is of this version and revision too; else it is an older one, for want of better."""
    behind_since: int = 0
    """Unix nanoseconds, not after the first change of the record that the answer does not cover; 0: it covers
    all. The store says it: whoever hands in an answer need not."""


class UserRecord(NamedTuple):
    """A user's history, attributes and cached answer. A tuple, like its answer: both are made for each
    request, and a frozen dataclass takes four times as long to make."""

    keys: NDArray[np.int64]
    """int64 `[n]`, item keys, oldest first."""
    times: NDArray[np.int64]
    """int64 `[n]`, Unix seconds, ascending."""
    types: NDArray[np.uint8]
    """uint8 `[n]`, `EventType`."""
    weights: NDArray[np.float32]
    """float32 `[n]`."""
    attributes_json: bytes
    revision: int
    """Goes up with every change of history or attributes, in Unix nanoseconds, and is never used twice for a
    user."""
    answer: CachedAnswer | None
    born: int = 0
    """The first revision: what was computed from an earlier one is of a record that was forgotten since."""

    @property
    def attributes(self) -> dict[str, str]:
        """Categorical attributes, name to value."""
        attributes: dict[str, str] = json.loads(self.attributes_json or b"{}")
        return attributes

    def consumed(self, types: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Keys of the items that are not to be recommended again: those with an event of one of `types`.

        Args:
            types: bool `[256]`, by `EventType` number; None: all of them.
        """
        return self.keys if types is None else self.keys[types[self.types]]

    def counting(self, types: NDArray[np.bool_] | None) -> UserRecord:
        """This record with the events of some types alone: bool `[256]`, by `EventType` number; None: all."""
        if types is None or (kept := types[self.types]).all():
            return self
        return self._replace(
            keys=self.keys[kept],
            times=self.times[kept],
            types=self.types[kept],
            weights=self.weights[kept],
        )

    @property
    def fresh_answer(self) -> CachedAnswer | None:
        """The cached answer if it covers the whole history, else None."""
        answer = self.answer
        return answer if answer is not None and answer.revision == self.revision else None


EMPTY_RECORD = UserRecord(
    keys=np.empty(0, np.int64),
    times=np.empty(0, np.int64),
    types=np.empty(0, np.uint8),
    weights=np.empty(0, np.float32),
    attributes_json=b"",
    revision=0,
    answer=None,
)


class Merged(NamedTuple):
    """Outcome of `with_events`."""

    record: UserRecord
    recorded: int
    """Events that are in the record now and were not before."""
    duplicates: int
    """Events that were in it already, or came twice."""


def with_events(record: UserRecord, events: Sequence[Event], history_cap: int) -> Merged:
    """`record` with `events` merged in by time.

    An event is identified by (item, type, time). Events of one second keep the order in which they came.
    Beyond `history_cap` the oldest go; one that is older than all that stay counts as neither new nor known.
    """
    known = set(zip(record.keys.tolist(), record.types.tolist(), record.times.tolist(), strict=True))
    new: list[tuple[int, int, int, float]] = []
    for event in events:
        identity = (item_key(event.item_id), int(event.type), event.time)
        if identity not in known:
            known.add(identity)
            new.append((*identity, event.weight))
    duplicates = len(events) - len(new)
    if not new:
        return Merged(record, 0, duplicates)
    keys, types, times, weights = zip(*new, strict=True)
    all_times = np.concatenate([record.times, np.array(times, np.int64)])
    order = np.argsort(all_times, kind="stable")[-history_cap:]
    recorded = int(np.count_nonzero(order >= len(record.keys)))
    if not recorded:
        return Merged(record, 0, duplicates)
    changed = record._replace(
        keys=np.concatenate([record.keys, np.array(keys, np.int64)])[order],
        times=all_times[order],
        types=np.concatenate([record.types, np.array(types, np.uint8)])[order],
        weights=np.concatenate([record.weights, np.array(weights, np.float32)])[order],
    )
    return Merged(_revised(changed), recorded, duplicates)


def with_attributes(record: UserRecord, attributes: Mapping[str, str]) -> UserRecord:
    """`record` with its attributes replaced; they are model inputs, so a cached answer is outdated."""
    attributes_json = json.dumps(dict(sorted(attributes.items())), ensure_ascii=False).encode()
    if attributes_json == record.attributes_json:
        return record
    return _revised(record._replace(attributes_json=attributes_json))


def with_answer(record: UserRecord, answer: CachedAnswer) -> UserRecord:
    """`record` with its answer replaced; `record` itself if the answer is of a record that was forgotten
    since, or what is kept is newer: of a later revision, or of the same one and computed later.

    An answer to an older history is kept, as one that is behind: a user whose events come faster than they
    can be encoded would else have none. A page that the new answer lacks is kept from the old one.
    """
    old = record.answer
    if not max(record.born, 1) <= answer.revision <= record.revision:
        return record
    if old is not None and _order_of(old) > _order_of(answer):
        return record
    if old is not None and not len(answer.page_keys):
        answer = answer._replace(page_keys=old.page_keys, page_is_current=False)
    if answer.revision == record.revision:
        behind_since = 0
    elif old is not None and old.revision == answer.revision:
        behind_since = old.behind_since
    else:
        # When the first change came that it does not cover is not known, only that it was not read yet.
        behind_since = answer.computed_at * _NS
    return record._replace(answer=answer._replace(behind_since=behind_since))


def _order_of(answer: CachedAnswer) -> tuple[int, int, int]:
    return answer.revision, answer.computed_at, answer.version


def _revised(record: UserRecord) -> UserRecord:
    """`record`, whose history or attributes have just been changed, with the next revision."""
    # The clock keeps a record that was forgotten and begun anew from repeating an old revision.
    revision = max(record.revision + 1, time.time_ns())
    answer = record.answer
    if answer is not None and not answer.behind_since:
        answer = answer._replace(behind_since=revision)
    return record._replace(revision=revision, born=record.born or revision, answer=answer)


def encode(record: UserRecord) -> bytes:
    """The stored form of `record`."""
    answer = record.answer
    return b"".join(
        (
            _HEADER.pack(
                _MAGIC,
                _FORMAT,
                len(record.keys),
                len(record.attributes_json),
                len(answer.vector) if answer else 0,
                len(answer.page_keys) if answer else 0,
                answer.page_is_current if answer else 0,
                record.revision,
                answer.revision if answer else 0,
                answer.version if answer else 0,
                answer.computed_at if answer else 0,
                record.born,
                answer.behind_since if answer else 0,
            ),
            record.keys.astype("<i8", copy=False).tobytes(),
            record.times.astype("<i8", copy=False).tobytes(),
            answer.page_keys.astype("<i8", copy=False).tobytes() if answer else b"",
            record.weights.astype("<f4", copy=False).tobytes(),
            answer.vector.astype("<f4", copy=False).tobytes() if answer else b"",
            record.types.tobytes(),
            record.attributes_json,
        )
    )


def decode(value: bytes) -> UserRecord:
    """The record in `value`; its arrays are read-only views of it.

    Raises:
        RecordError: not a record, of another format, or cut short.
    """
    earlier = value[:4] == _EARLIER
    header = _EARLIER_HEADER if earlier else _HEADER
    try:
        magic, form, n, a, d, p, current, revision, answer_revision, version, computed_at, *rest = (
            header.unpack_from(value)
        )
    except struct.error as error:
        raise RecordError(f"a user record has at least {header.size} bytes, not {len(value)}") from error
    if magic != _MAGIC or form != (_EARLIER_FORMAT if earlier else _FORMAT):
        raise RecordError(f"a user record starts with {_MAGIC!r}, {_FORMAT}, not {magic!r}, {form}")
    if len(value) != header.size + 21 * n + 8 * p + 4 * d + a:
        raise RecordError(f"a user record of {n} events and {d} vector values cannot have {len(value)} bytes")
    if rest:
        born, behind_since = rest
    else:
        born = min(revision, answer_revision) if version else revision
        behind_since = 0 if answer_revision == revision else computed_at * _NS
    # All 8-byte values stand before the 4-byte ones: one view of each width, cut by slicing.
    start = header.size
    wide = np.frombuffer(value, "<i8", 2 * n + p, start)
    start += wide.nbytes
    narrow = np.frombuffer(value, "<f4", n + d, start)
    start += narrow.nbytes
    answer = None
    if version:
        answer = CachedAnswer(
            version, answer_revision, computed_at, narrow[n:], wide[2 * n :], bool(current), behind_since
        )
    return UserRecord(
        keys=wide[:n],
        times=wide[n : 2 * n],
        types=np.frombuffer(value, np.uint8, n, start),
        weights=narrow[:n],
        attributes_json=value[start + n :],
        revision=revision,
        answer=answer,
        born=born,
    )
