"""Loading users into the online store from the prepared event log.

Safe to repeat and safe to run beside a live gateway: events are merged by identity, so what was recorded
since stays. The store notes which data it was loaded with, so that a start does not merge the same again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from features.order import lots
from features.record import Event
from features.schema import EventType, item_key
from features.store import FeatureStore

_EVENTS_PER_WRITE = 10_000


class BackfillError(Exception):
    """The prepared data cannot be read."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a back-fill did."""

    users: int
    recorded: int
    already_stored: int
    forgotten_users: int


async def backfill_once(store: FeatureStore, data: Path, *, history_cap: int) -> Backfilled | None:
    """`backfill`, unless this store was loaded with the same data as a whole before: None.

    Args:
        store: where to.
        data: folder of prepared data.
        history_cap: events that the store keeps per user. Under another one the data is loaded again: what an
            earlier one left out may be wanted now.

    Raises:
        BackfillError, StoreError: as `backfill`.
    """
    # Taken first: should the data be replaced meanwhile, the next start finds another fingerprint.
    fingerprint = f"{_fingerprint(data)} cap {history_cap}"
    if await store.loaded_data() == fingerprint:
        return None
    done = await backfill(store, data)
    await store.mark_loaded(fingerprint)
    return done


def _fingerprint(data: Path) -> str:
    """BLAKE2b of the files' contents: a few seconds for what takes many minutes to merge."""
    digests = []
    for path in (data / "events.parquet", data / "users.parquet"):
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "blake2b").hexdigest())
        except FileNotFoundError:
            digests.append("none")
        except OSError as error:
            raise BackfillError(f"{path}: cannot be read: {error.strerror}") from error
    return " ".join(digests)


async def backfill(store: FeatureStore, data: Path) -> Backfilled:
    """Appends all events and attributes of a prepared-data folder. Users on the exclusion list are left out.

    Args:
        store: where to.
        data: folder with `events.parquet` and, if there are attributes, `users.parquet`.

    Raises:
        BackfillError: a file is missing or has other columns.
        StoreError: the store refused; what was written before stays, and a repetition goes on.
    """
    excluded = await store.excluded_users()
    users = recorded = already = 0
    forgotten: set[str] = set()
    batch: list[Event] = []
    for user_id, events in groupby(_events(data / "events.parquet"), key=lambda event: event.user_id):
        if user_id in excluded:
            forgotten.add(user_id)
            continue
        users += 1
        batch.extend(_in_order(user_id, list(events)))
        if len(batch) >= _EVENTS_PER_WRITE:
            outcome = await store.append(batch, leave_out_excluded=True)
            recorded, already, batch = recorded + outcome.recorded, already + outcome.duplicates, []
    if batch:
        outcome = await store.append(batch, leave_out_excluded=True)
        recorded, already = recorded + outcome.recorded, already + outcome.duplicates
    for attributes in _attributes(data / "users.parquet"):
        await store.set_attributes(attributes)
    return Backfilled(users, recorded, already, len(forgotten))


def _in_order(user_id: str, events: list[Event]) -> list[Event]:
    """By time, and within one second as training has them; the store keeps the order in which they come."""
    keys = np.array([item_key(event.item_id) for event in events], np.int64)
    drawn = lots(user_id, keys).tolist()
    order = sorted(range(len(events)), key=lambda i: (events[i].time, drawn[i]))
    return [events[i] for i in order]


def _events(path: Path) -> Iterator[Event]:
    try:
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches(columns=["user_id", "item_id", "type", "time", "weight"]):
                for user_id, item_id, kind, time, weight in zip(
                    *(c.to_pylist() for c in rows.columns), strict=True
                ):
                    yield Event(user_id, item_id, EventType(kind), time, weight)
    except (OSError, KeyError, ValueError) as error:
        raise BackfillError(
            f"{path}: not a prepared event log ({error}); run python -m training prepare"
        ) from error


def _attributes(path: Path) -> Iterator[dict[str, dict[str, str]]]:
    if not path.exists():
        return
    with pq.ParquetFile(path) as file:
        for rows in file.iter_batches(batch_size=_EVENTS_PER_WRITE):
            yield {
                row.pop("user_id"): {name: value for name, value in row.items() if value is not None}
                for row in rows.to_pylist()
            }
