"""A Cluster: which server has which slot, and where a call goes when that has changed.

After the Redis Cluster specification: MOVED says that a slot has another owner now, ASK that this one key is
on its way to another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as ServerGone

from features.redis_address import HostPort
from features.redis_link import Call
from features.redis_server import CONNECT_S, Confirm, Reply, Server

_MOST_ROUNDS = 16
_TRY_AGAIN_S = 0.005
_LOOK_S = CONNECT_S / 4
"""Longest wait for one server to say who has which slot; then another one is asked."""


class _Errand(NamedTuple):
    """A call under way."""

    position: int
    server: HostPort
    asking: bool = False


class ClusterLink:
    """A `Link` to a Cluster. Keys of several slots can be read and changed together, but not as a whole."""

    def __init__(self, seeds: Sequence[HostPort], new_server: Callable[[HostPort], Server]) -> None:
        """Nothing is asked yet.

        Args:
            seeds: some of its servers.
            new_server: makes what speaks to one.
        """
        self._seeds, self._new_server = tuple(seeds), new_server
        # A server that has left stays here without connections: they are few.
        self._servers: dict[HostPort, Server] = {}
        self._known = list(self._seeds)
        self._owners: list[HostPort | None] = []
        self._stale = True
        self._looking: asyncio.Task[None] | None = None

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        by_slot: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            by_slot.setdefault(key_slot(key), []).append(position)
        return list(by_slot.values())

    async def send(self, calls: Sequence[Call], confirm: Confirm | None = None) -> list[Reply]:
        await self._look()
        replies: list[Reply] = [None] * len(calls)
        errands = [_Errand(position, self._owner(call.key)) for position, call in enumerate(calls)]
        for _ in range(_MOST_ROUNDS):
            errands = await self._round(calls, errands, replies, confirm)
            if not errands:
                return replies
        raise ServerGone("the servers of the Cluster send a call from one to the other")

    async def servers(self) -> list[Server]:
        await self._look()
        return [self._server(server) for server in dict.fromkeys(self._owners) if server is not None]

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    async def _round(
        self, calls: Sequence[Call], errands: Sequence[_Errand], replies: list[Reply], confirm: Confirm | None
    ) -> list[_Errand]:
        """Sends each server what is its; puts replies where they belong. What has to go elsewhere is left."""
        shares: dict[tuple[HostPort, bool], list[int]] = {}
        for position, server, asking in errands:
            shares.setdefault((server, asking), []).append(position)
        # Cancelling it cancels all of them; an error of one leaves none of the others unawaited.
        answers = await asyncio.gather(
            *(
                self._exchange(server, [calls[position] for position in positions], asking, confirm)
                for (server, asking), positions in shares.items()
            ),
            return_exceptions=True,
        )
        left: list[_Errand] = []
        failed: list[BaseException] = []
        for ((server, _), positions), answer in zip(shares.items(), answers, strict=True):
            if isinstance(answer, BaseException):
                failed.append(answer)
                continue
            for position, reply in zip(positions, answer, strict=True):
                if isinstance(reply, AskError):
                    # A server that does not know its own name leaves it out.
                    there = (reply.host or server[0], reply.port)
                    if moved := isinstance(reply, MovedError):
                        self._stale = True  # the others of that server may have moved, too
                    left.append(_Errand(position, there, asking=not moved))
                elif isinstance(reply, TryAgainError):
                    left.append(_Errand(position, server))
                else:
                    self._stale |= isinstance(reply, ClusterDownError)
                    replies[position] = reply
        if failed:
            raise failed[0]
        if any(isinstance(reply, TryAgainError) for answer in answers for reply in answer):  # type: ignore[union-attr]  # none failed
            await asyncio.sleep(_TRY_AGAIN_S)
        return left

    async def _exchange(
        self, server: HostPort, calls: Sequence[Call], asking: bool, confirm: Confirm | None
    ) -> list[Reply]:
        commands = [call.command for call in calls]
        try:
            if not asking:
                return await self._server(server).exchange(commands, confirm)
            # It holds for the next command only.
            asked = [each for command in commands for each in (("ASKING",), command)]
            return (await self._server(server).exchange(asked, confirm))[1::2]
        except BaseException:  # one that hangs is given up, which is no error
            self._doubt(server)
            raise

    def _server(self, server: HostPort) -> Server:
        if server not in self._servers:
            self._servers[server] = self._new_server(server)
        return self._servers[server]

    def _owner(self, key: bytes) -> HostPort:
        owner = self._owners[key_slot(key)]
        if owner is None:
            self._stale = True
            raise ServerGone("no server of the Cluster has the slot of a key")
        return owner

    def _doubt(self, server: HostPort) -> None:
        """A server failed: who has its slots is asked again, and others are asked first."""
        self._stale = True
        if server in self._known:
            self._known.remove(server)
            self._known.append(server)

    async def _look(self) -> None:
        """Learns who has which slot, if that is in doubt; goes on if who waits for it gives up."""
        if not self._stale:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_around())
        await asyncio.shield(self._looking)

    async def _look_around(self) -> None:
        why: Exception | None = None
        for server in tuple(self._known):
            try:
                async with asyncio.timeout(_LOOK_S):
                    [slots] = await self._server(server).exchange([("CLUSTER", "SLOTS")])
            except (RedisError, OSError) as error:
                self._doubt(server)
                why = error
                continue
            if isinstance(slots, ResponseError):
                raise slots  # it is no Cluster, or we may not ask
            self._take(slots, server)
            return
        raise ServerGone(f"no server of the Cluster answers: {why or 'not in time'}") from why

    def _take(self, slots: list[list[Reply]], asked: HostPort) -> None:
        owners: list[HostPort | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        known: dict[HostPort, None] = {asked: None}
        for first, last, *servers in slots:
            # [host, port, id, …]: the owner, then its replicas.
            named = [((host or b"").decode() or asked[0], port) for host, port, *_ in servers]
            known |= dict.fromkeys(named)
            owners[first : last + 1] = [named[0]] * (last + 1 - first)
        self._owners = owners
        self._known = list(known | dict.fromkeys(self._seeds))
        self._stale = False
