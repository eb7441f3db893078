"""The way to the servers: one, or the one that Sentinels name; `redis_cluster` is the way to many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Connection, ConnectionPool, Sentinel, SentinelConnectionPool, SSLConnection

from features.redis_address import Address, HostPort
from features.redis_server import CONNECT_S, Command, Confirm, Reply, Server


@dataclass(frozen=True, slots=True)
class Call:
    """A command."""

    key: bytes
    """A key that it names: says where it goes."""
    command: Command


class Link(Protocol):
    """One server, or many. Every method raises what redis-py raises when a server cannot be reached."""

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Positions of the keys that one command may name, group by group."""

    async def send(self, calls: Sequence[Call], confirm: Confirm | None = None) -> list[Reply]:
        """The replies to the calls, in order. Each server gets its share at once, and answers in one trip."""

    async def servers(self) -> list[Server]:
        """Those that hold the data, each a part."""

    async def close(self) -> None:
        """Closes all connections."""


class OneServer:
    """A `Link` to a server, or to the one that Sentinels name."""

    def __init__(self, server: Server, sentinel: Sentinel | None = None) -> None:
        self._server, self._sentinel = server, sentinel

    def together(self, keys: Sequence[bytes]) -> list[list[int]]:
        return [list(range(len(keys)))] if keys else []

    async def send(self, calls: Sequence[Call], confirm: Confirm | None = None) -> list[Reply]:
        return await self._server.exchange([call.command for call in calls], confirm)

    async def servers(self) -> list[Server]:
        return [self._server]

    async def close(self) -> None:
        await self._server.close()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def open_server(address: Address, server: HostPort) -> Server:
    """One server of `address`; not connected yet."""
    pool = ConnectionPool(
        connection_class=SSLConnection if address.tls else Connection,
        host=server[0],
        port=server[1],
        **_connection(address),
    )
    return Server(pool)


def open_sentinel(address: Address) -> OneServer:
    """The link to the primary that the Sentinels of `address` name."""
    # All that cannot be reached must be found out before the time for connecting is over.
    each_s = CONNECT_S / (len(address.hosts) + 1)
    asked: dict[str, Any] = {**_encryption(address), "ssl": address.tls, "protocol": 2, "driver_info": None}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # as redis-py left it
        list(address.hosts),
        sentinel_kwargs=asked | {"socket_timeout": each_s, "socket_connect_timeout": each_s, "retry": None},
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]  # as redis-py left it
        address.service, sentinel, ssl=address.tls, **_connection(address)
    )
    return OneServer(Server(pool), sentinel)


def _connection(address: Address) -> dict[str, Any]:
    return {
        **_encryption(address),
        "username": address.user,
        "password": address.password,
        "db": address.database,
        # Whoever calls says how long.
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_S,
        "protocol": 2,
        # Would be told to the server with each connection, and needs a permission.
        "driver_info": None,
    }


def _encryption(address: Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    return {
        "ssl_ca_certs": address.ca and str(address.ca),
        "ssl_certfile": address.cert and str(address.cert),
        "ssl_keyfile": address.key and str(address.key),
    }
