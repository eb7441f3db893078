"""One server: commands go out together, their replies come back in order.

Of redis-py this uses connections and pools alone. Its clients repeat what failed by themselves, which a
compare-and-set must not (decision 21).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError, ResponseError

from features.redis_scripts import Argument

Command: TypeAlias = tuple[Argument, ...]
Reply: TypeAlias = Any
"""What the server said: bytes, int, None, a list of them; or a `ResponseError`, not raised."""

CONNECT_S = 2.0
"""Longest wait for a connection. The time of a call does not limit it: where connecting takes longer than a
call may, no call would ever have a connection."""


class TooFewReplicas(RedisError):
    """A write is in the server, and not in as many replicas as it has to be. The server itself is well."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """What has to have a write before it is acknowledged."""

    replicas: int
    within_ms: int


class Server:
    """A server, and the connections to it."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._under_way: set[asyncio.Task[Any]] = set()

    async def exchange(self, commands: Sequence[Command], confirm: Confirm | None = None) -> list[Reply]:
        """The replies to the commands, sent in one go.

        Raises:
            redis.exceptions.RedisError, OSError: it cannot be reached, or too few replicas have confirmed.
        """
        sent = [*commands, ("WAIT", confirm.replicas, confirm.within_ms)] if confirm else commands
        connection = await self._connection()
        try:
            # A call that is given up in here closes the connection: a late reply cannot answer another call.
            await connection.send_packed_command(connection.pack_commands(sent))
            replies = [await _reply(connection) for _ in sent]
        finally:
            await self._pool.release(connection)
        if confirm:
            confirmed = replies.pop()
            if isinstance(confirmed, ResponseError) or confirmed < confirm.replicas:
                raise TooFewReplicas(
                    f"written, but of {confirm.replicas} replicas have confirmed: {confirmed}"
                )
        return replies

    async def close(self) -> None:
        """Closes all connections."""
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._pool.aclose()

    async def _connection(self) -> Any:
        """A connection; made to the end even if who waits for it gives up, for the next call."""
        connecting = self._begin(self._connect())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            self._begin(self._keep(connecting))
            raise

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _connect(self) -> Any:
        async with asyncio.timeout(CONNECT_S):
            return await self._pool.get_connection()  # type: ignore[no-untyped-call]  # as redis-py left it

    async def _keep(self, connecting: asyncio.Task[Any]) -> None:
        with contextlib.suppress(Exception):  # nobody waits any more: the next call finds out
            await self._pool.release(await connecting)


async def _reply(connection: Any) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
