"""A server that is reached over a slow way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FarAway:
    """Passes on what the server at `origin` says so much later; with `inf` it says nothing, ever."""

    def __init__(self, origin: str, delay_s: float) -> None:
        self._origin, self._delay_s = origin, delay_s
        self.address = ""
        self.connections = 0
        """That were made to it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, port = self._origin.split(":")
        from_origin, to_origin = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, to_origin), self._answer(from_origin, writer))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._delay_s)
        await _pump(reader, writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
    except ConnectionError:
        pass  # whoever it is has given up
    finally:
        writer.close()


@asynccontextmanager
async def far_away(origin: str, delay_s: float) -> AsyncIterator[FarAway]:
    """Such a way to a server, until the block ends."""
    way = FarAway(origin, delay_s)
    async with await asyncio.start_server(way.serve, "127.0.0.1", 0) as server:
        way.address = "{}:{}".format(*server.sockets[0].getsockname())
        yield way
