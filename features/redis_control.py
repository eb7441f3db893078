"""The `ControlStore` of a Redis or Valkey.

A document is its revision, int64, and the value. Reports are one hash. A user's exposures are a hash by
experiment, beside the record: forgetting deletes both at once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Sequence

from features import redis_keys, redis_scripts
from features.control import Document, Exposure, experiment_of
from features.redis_client import RedisClient
from features.redis_keys import REPORTS, of_user
from features.redis_link import Call

_REVISION = struct.Struct("<q")


class RedisControl:
    """Documents, reports and exposures."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def read_document(self, name: str) -> Document:
        key = redis_keys.document(name)
        [value] = await self._client.read([Call(key, ("GET", key))])
        if value is None:
            return Document(0, b"")
        return Document(_REVISION.unpack_from(value)[0], value[_REVISION.size :])

    async def replace_document(self, name: str, value: bytes, revision: int) -> bool:
        arguments = [_REVISION.pack(revision), _REVISION.pack(revision + 1) + value]
        key = redis_keys.document(name)
        [replaced] = await self._client.run(redis_scripts.REPLACE_DOCUMENT, [([key], arguments)])
        return bool(replaced)

    async def put_report(self, source: str, value: bytes) -> None:
        await self._client.run(redis_scripts.PUT_REPORT, [([REPORTS], [source, value])], durable=False)

    async def reports(self) -> dict[str, bytes]:
        [flat] = await self._client.read([Call(REPORTS, ("HGETALL", REPORTS))], in_no_hurry=True)
        return {source.decode(): value for source, value in zip(flat[::2], flat[1::2], strict=True)}

    async def drop_reports(self, sources: Collection[str]) -> None:
        if sources:
            await self._client.write([Call(REPORTS, ("HDEL", REPORTS, *sources))])

    async def log_exposures(self, exposures: Sequence[Exposure]) -> None:
        uses = []
        for exposure in exposures:
            keys = [of_user("u", exposure.user_id), of_user("e", exposure.user_id)]
            value = json.dumps([exposure.user_id, exposure.arm, exposure.at])
            uses.append((keys, [experiment_of(exposure.arm), value]))
        await self._client.run(redis_scripts.LOG_EXPOSURE, uses)

    async def exposures(self, experiment: str) -> list[Exposure]:
        found: dict[bytes, Exposure] = {}  # by key: a scan may name one twice
        async for keys in self._client.keys(redis_keys.every("e")):
            calls = [Call(key, ("HGET", key, experiment)) for key in keys]
            values = await self._client.read(calls, in_no_hurry=True)
            found |= {
                key: Exposure(*json.loads(value)) for key, value in zip(keys, values, strict=True) if value
            }
        return list(found.values())

    async def exposures_of(self, user_id: str) -> list[Exposure]:
        key = of_user("e", user_id)
        [values] = await self._client.read([Call(key, ("HVALS", key))])
        return [Exposure(*json.loads(value)) for value in values]
