"""The shared store: Redis or Valkey, from 7 on; one server, behind Sentinels, or a Cluster.

What the server must be set to so that "acknowledged" means what `features.store` promises, and the least that
an ACL has to allow, is in docs/decisions/0021.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Mapping, Sequence

from features import redis_keys, redis_scripts
from features.record import (
    EMPTY_RECORD,
    CachedAnswer,
    Event,
    RecordError,
    UserRecord,
    decode,
    with_attributes,
)
from features.redis_address import Address
from features.redis_client import RedisClient
from features.redis_control import RedisControl
from features.redis_keys import of_user, user_of
from features.redis_link import Call
from features.redis_scripts import Argument
from features.redis_server import Reply
from features.schema import item_key
from features.store import Appended

_USERS_PER_SCRIPT = 256
"""The server does nothing else while a script runs."""
_NS = 1_000_000_000

log = logging.getLogger("riptide.features.redis_store")


class RedisStore:
    """A `FeatureStore` in a Redis or Valkey.

    Events of several users are appended all or none but in a Cluster, where each user's are: `append` raises
    unless all were, and to repeat it adds what is missing.
    """

    def __init__(self, address: Address, *, history_cap: int) -> None:
        """Connects with the first call, so that a process can start before its store does.

        Args:
            address: where it is.
            history_cap: events kept per user.
        """
        self._client = RedisClient(address)
        self._history_cap = history_cap
        self.control = RedisControl(self._client)

    # Reads

    async def read(self, user_ids: Sequence[str]) -> list[UserRecord]:
        keys = [of_user("u", user_id) for user_id in user_ids]
        groups = self._client.together(keys)
        calls = [Call(keys[group[0]], ("MGET", *(keys[each] for each in group))) for group in groups]
        records = [EMPTY_RECORD] * len(keys)
        for group, values in zip(groups, await self._client.read(calls), strict=True):
            for position, value in zip(group, values, strict=True):
                if value is not None:
                    records[position] = _readable(value)
        return records

    async def is_excluded(self, user_id: str) -> bool:
        key = of_user("x", user_id)
        [there] = await self._client.read([Call(key, ("EXISTS", key))])
        return bool(there)

    async def excluded_users(self) -> frozenset[str]:
        found: set[str] = set()
        async for keys in self._client.keys(redis_keys.every("x")):
            found.update(map(user_of, keys))
        return frozenset(found)

    async def sample_users(self, count: int) -> list[str]:
        found: dict[str, None] = {}  # a scan may name a key twice
        async for keys in self._client.keys(redis_keys.every("u")):
            found |= dict.fromkeys(map(user_of, keys))
            if len(found) >= count:
                break
        return list(found)[:count]

    async def loaded_data(self) -> str:
        [value] = await self._client.read([Call(redis_keys.LOADED, ("GET", redis_keys.LOADED))])
        return (value or b"").decode()

    # Writes

    async def append(self, events: Sequence[Event], *, leave_out_excluded: bool = False) -> Appended:
        by_key: dict[bytes, list[Event]] = {}
        marks: dict[bytes, bytes] = {}
        for event in events:
            key = of_user("u", event.user_id)
            by_key.setdefault(key, []).append(event)
            if leave_out_excluded:
                marks[key] = of_user("x", event.user_id)
        keys = list(by_key)
        again = int(self._client.waits_for_replicas)
        head: list[Argument] = [_int64(time.time_ns()), self._history_cap, int(leave_out_excluded), again]
        uses = []
        for group in self._client.together(keys):
            own = [keys[each] for each in group]
            columns = [column for key in own for column in _columns(by_key[key])]
            uses.append(([*own, *(marks[key] for key in own if leave_out_excluded)], [*head, *columns]))
        outcomes = await self._client.run(redis_scripts.APPEND, uses, in_no_hurry=leave_out_excluded)
        return Appended(sum(recorded for recorded, _ in outcomes), sum(known for _, known in outcomes))

    async def set_attributes(self, attributes: Mapping[str, Mapping[str, str]]) -> None:
        users = list(attributes)
        head: list[Argument] = [_int64(time.time_ns()), int(self._client.waits_for_replicas)]
        uses = []
        for own in self._groups(users):
            keys = [of_user(part, user_id) for part in ("u", "x") for user_id in own]
            uses.append((keys, [*head, *(_attributes(attributes[user_id]) for user_id in own)]))
        await self._client.run(redis_scripts.SET_ATTRIBUTES, uses, in_no_hurry=True)

    async def put_answers(self, answers: Mapping[str, CachedAnswer]) -> None:
        uses = []
        for own in self._groups(list(answers)):
            columns = [column for user_id in own for column in _answer(answers[user_id])]
            uses.append(([of_user("u", user_id) for user_id in own], columns))
        # A cache does not wait for replicas.
        await self._client.run(redis_scripts.PUT_ANSWERS, uses, durable=False)

    async def forget(self, user_id: str) -> bool:
        keys = [of_user("u", user_id), of_user("x", user_id), of_user("e", user_id)]
        [deleted] = await self._client.run(redis_scripts.FORGET, [(keys, [])])
        return bool(deleted)

    async def mark_loaded(self, fingerprint: str) -> None:
        await self._client.write([Call(redis_keys.LOADED, ("SET", redis_keys.LOADED, fingerprint))])

    async def close(self) -> None:
        await self._client.close()

    def _groups(self, user_ids: Sequence[str]) -> list[list[str]]:
        """Users whom one script may change, of those whose records need not change together."""
        return [
            [user_ids[each] for each in group[start : start + _USERS_PER_SCRIPT]]
            for group in self._client.together([of_user("u", user_id) for user_id in user_ids])
            for start in range(0, len(group), _USERS_PER_SCRIPT)
        ]


def _columns(events: list[Event]) -> tuple[bytes, bytes, bytes, bytes]:
    """Keys, times, weights and types as a record has them, in order of time and else as they came."""
    if len(events) > 1:
        events = sorted(events, key=lambda event: event.time)
    n = len(events)
    return (
        struct.pack(f"<{n}q", *(item_key(event.item_id) for event in events)),
        struct.pack(f"<{n}q", *(event.time for event in events)),
        struct.pack(f"<{n}f", *(event.weight for event in events)),
        bytes(int(event.type) for event in events),
    )


def _attributes(attributes: Mapping[str, str]) -> bytes:
    return with_attributes(EMPTY_RECORD, attributes).attributes_json  # as every store writes them


def _answer(answer: CachedAnswer) -> tuple[Argument, ...]:
    return (
        _int64(answer.version),
        _int64(answer.revision),
        _int64(answer.computed_at),
        _int64(answer.computed_at * _NS),
        int(answer.page_is_current),
        answer.vector.astype("<f4", copy=False).tobytes(),
        answer.page_keys.astype("<i8", copy=False).tobytes(),
    )


def _int64(number: int) -> bytes:
    return struct.pack("<q", number)


def _readable(value: Reply) -> UserRecord:
    try:
        return decode(value)
    except RecordError as error:
        log.error("a user record reads as empty: %s", error)
        return EMPTY_RECORD
