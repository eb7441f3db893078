"""Calls to a Redis or Valkey with what the store asks of each: a time limit, a breaker, errors of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from features.redis_address import Address
from features.redis_breaker import Breaker, Unreachable
from features.redis_cluster import ClusterLink
from features.redis_link import Call, Link, OneServer, open_sentinel, open_server
from features.redis_scripts import Argument, Script
from features.redis_server import Command, Confirm, Reply, TooFewReplicas
from features.store import StoreError, StoreFull, StoreUnavailable

_MOST_AT_ONCE = 32
"""Calls in flight; each holds a connection. The others wait, and their time runs."""
_WRITE_TIMES = 10
"""A write may take so many times as long as a read: it waits for a disk."""
_LOADING_S = 10.0
"""Longest wait of what no request waits for: loading, and going through all keys."""
_KEYS_PER_SCAN = 1000

log = logging.getLogger("riptide.features.redis_client")


class RedisClient:
    """A deployment. Nothing is connected before the first call."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._link = _link(address)
        self._breaker = Breaker(f"RIPTIDE_STORE at {address}")
        # Each its own: writes may wait for a disk or for replicas, and must not keep the reads out meanwhile.
        self._reads_at_once = asyncio.Semaphore(_MOST_AT_ONCE)
        self._others_at_once = asyncio.Semaphore(_MOST_AT_ONCE)
        self._read_s = address.timeout_ms / 1000
        self._write_s = self._read_s * _WRITE_TIMES
        self._looked_at = self._closed = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def waits_for_replicas(self) -> bool:
        """Whether a change is done only when replicas have it."""
        return self._address.replicas > 0

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Positions of the keys that one command may name, group by group; all of them but in a Cluster."""
        return self._link.together(keys)

    async def read(self, calls: Sequence[Call], *, in_no_hurry: bool = False) -> list[Reply]:
        """The replies to commands that change nothing.

        Raises:
            StoreUnavailable: there is one that it cannot answer, or it cannot in time.
        """
        return await self._send(calls, _LOADING_S if in_no_hurry else self._read_s)

    async def write(self, calls: Sequence[Call]) -> list[Reply]:
        """The replies to commands that change something, once they are as durable as they get.

        Raises:
            StoreFull, StoreUnavailable: as `run`.
        """
        return await self._send(calls, self._write_s, self._confirm(self._write_s))

    async def run(
        self,
        script: Script,
        uses: Sequence[tuple[Sequence[bytes], Sequence[Argument]]],
        *,
        durable: bool = True,
        in_no_hurry: bool = False,
    ) -> list[Reply]:
        """What the script answers to each use, of keys and arguments; the keys of one use are of one slot.

        Raises:
            StoreFull: no room; what the scripts of servers with room did stays.
            StoreUnavailable: it cannot be done, or not in time; some of it may have been done.
        """
        within_s = _LOADING_S if in_no_hurry else self._write_s
        confirm = self._confirm(within_s) if durable else None
        calls = [Call(keys[0], script.by_hash(keys, arguments)) for keys, arguments in uses]
        replies = await self._send(calls, within_s, confirm)
        # The server was restarted, or has taken over from another one.
        unknown = [position for position, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [Call(calls[each].key, script.whole(calls[each].command)) for each in unknown]
            for position, reply in zip(unknown, await self._send(again, within_s, confirm), strict=True):
                replies[position] = reply
        return replies

    async def keys(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Keys that match the pattern, some at a time, in no order; those that come or go meanwhile, perhaps.

        Raises:
            StoreUnavailable: a server cannot answer.
        """
        async with self._limited(_LOADING_S):
            servers = await self._link.servers()
        for server in servers:
            cursor: Argument = 0
            while True:
                async with self._limited(_LOADING_S):
                    scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SCAN)
                    [reply] = await server.exchange([scan])
                    _raise_for([reply])
                cursor, found = reply
                yield found
                if cursor == b"0":
                    break

    async def of_servers(self, command: Command) -> list[Reply]:
        """What each server that holds data replies to a command that names no key.

        Raises:
            StoreUnavailable: there is one that refuses, or cannot answer.
        """
        async with self._limited(_LOADING_S):
            replies = [
                reply for each in await self._link.servers() for reply in await each.exchange([command])
            ]
            _raise_for(replies)
        return replies

    async def close(self) -> None:
        """Waits for the calls in flight, and closes all connections. No call may follow."""
        if self._closed:
            return
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._write_s):
                for at_once in (self._reads_at_once, self._others_at_once):
                    for _ in range(_MOST_AT_ONCE):
                        await at_once.acquire()
        await self._link.close()

    def _confirm(self, within_s: float) -> Confirm | None:
        replicas = self._address.replicas
        return Confirm(replicas, int(within_s * 500)) if replicas else None  # half of the time

    async def _send(
        self, calls: Sequence[Call], within_s: float, confirm: Confirm | None = None
    ) -> list[Reply]:
        if not calls:
            return []
        async with self._limited(within_s):
            replies = await self._link.send(calls, confirm)
            _raise_for(replies)
        if not self._looked_at:
            self._looked_at = True
            self._looking = asyncio.create_task(self._look_at_servers())
        return replies

    @contextlib.asynccontextmanager
    async def _limited(self, within_s: float) -> AsyncIterator[None]:
        """Around a call: the breaker, the time limit, the limit of calls at once, our errors for theirs."""
        at_once = self._reads_at_once if within_s == self._read_s else self._others_at_once
        with self._breaker.call():
            try:
                async with asyncio.timeout(within_s), at_once:
                    yield
            except (RedisError, OSError) as error:
                raise self._translated(error, within_s) from error

    def _translated(self, error: Exception, within_s: float) -> StoreError:
        name = f"RIPTIDE_STORE: {self._address}"
        match error:
            case TooFewReplicas():
                return StoreUnavailable(f"{name}: {error}")
            case TimeoutError():
                return Unreachable(f"{name} did not answer within {within_s * 1000:.0f} ms")
            case ResponseError():
                return StoreUnavailable(f"{name} refuses ({error})")
            case AuthenticationError():
                return Unreachable(f"{name} does not let us in ({error}): wrong user or password?")
        return Unreachable(f"{name} cannot be reached ({error})")

    async def _look_at_servers(self) -> None:
        """Says what of the servers' configuration would lose what was acknowledged."""
        try:
            async with self._limited(_LOADING_S):
                servers = await self._link.servers()
                said = [
                    await each.exchange([("INFO", "persistence"), ("INFO", "memory")]) for each in servers
                ]
        except StoreError as error:
            log.info("what the store keeps is not known: %s", error)
            return
        for warning in sorted({each for replies in said for each in warnings(replies)}):
            log.warning("%s", warning)


def warnings(info: Sequence[Reply]) -> list[str]:
    """What of a server is not fit for a store, by what its INFO says; what that leaves out counts as fit."""
    text = b"\r\n".join(each for each in info if isinstance(each, bytes))
    said = dict(line.split(b":", 1) for line in text.split(b"\r\n") if b":" in line)
    found = []
    if said.get(b"aof_enabled") == b"0":
        found.append(
            "RIPTIDE_STORE has appendonly off: events are lost if it dies after they were acknowledged; "
            "set appendonly yes and appendfsync always"
        )
    policy = said.get(b"maxmemory_policy", b"noeviction").decode()
    if policy != "noeviction":
        found.append(
            f"RIPTIDE_STORE has maxmemory-policy {policy}: short of memory it deletes records, and the marks "
            "of users who asked to be forgotten; set noeviction"
        )
    return found


def _link(address: Address) -> Link:
    if address.kind == "sentinel":
        return open_sentinel(address)
    if address.kind == "cluster":
        return ClusterLink(address.hosts, partial(open_server, address))
    return OneServer(open_server(address, address.hosts[0]))


def _raise_for(replies: Sequence[Reply]) -> None:
    """Raises for the first error among the replies, but not for a script that is not known."""
    for reply in replies:
        if not isinstance(reply, ResponseError) or isinstance(reply, NoScriptError):
            continue
        if isinstance(reply, OutOfMemoryError):
            raise StoreFull("the store is full: its maxmemory is reached; raise it") from reply
        # It is there, but not as what we need: soon another one will be.
        if isinstance(reply, ClusterDownError | ReadOnlyError):
            raise Unreachable(f"RIPTIDE_STORE cannot be used now ({reply})") from reply
        raise StoreUnavailable(f"RIPTIDE_STORE refuses ({reply})") from reply
