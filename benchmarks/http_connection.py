"""One kept-alive HTTP/1.1 connection that posts JSON, for servers that speak no gRPC."""

from __future__ import annotations

import asyncio


class HttpConnection:
    """One call at a time; calls that come meanwhile wait for their turn."""

    def __init__(self, port: int, path: str, timeout_s: float) -> None:
        """Connects with the first call."""
        self._port, self._timeout_s = port, timeout_s
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def __call__(self, body: bytes) -> bytes | None:
        """The answer's body; None if its status is not 200, or it does not come in time."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._post(body)
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
                self._drop()
                return None

    async def _post(self, body: bytes) -> bytes | None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields if ": " in field)
        if "content-length" in headers:
            answer = await reader.readexactly(int(headers["content-length"]))
        else:
            answer = await _chunks(reader)
        if headers.get("connection") == "close":
            self._drop()
        return answer if status.split(" ")[1] == "200" else None

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body in chunks (RFC 9112, section 7.1)."""
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(parts)
