"""When the stack may be called ready."""

from __future__ import annotations

import asyncio
import json
import time

from features.settings import Settings
from stack.errors import StackError

# What /readyz answers then. The gateway serves without a model too, on fallback pages: not ready.
_READY = {"gateway": "SERVING", "model": "SERVING"}

_POLL_S = 0.1
_CALL_S = 2.0
# What the gateway may take after Triton has the model.
_GATEWAY_S = 15.0


async def until_ready(settings: Settings) -> None:
    """Returns when the gateway serves and says that a model version does; StackError if it takes too long."""
    limit_s = settings.triton_ready_s + _GATEWAY_S
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if await readiness(settings) == _READY:
            return
        await asyncio.sleep(_POLL_S)
    raise StackError(
        f"not ready after {limit_s:.0f} s (the setting is RIPTIDE_TRITON_READY_S); "
        f"the logs are in {settings.state_dir / 'log'}"
    )


async def readiness(settings: Settings) -> object:
    """What the gateway's /readyz says, JSON decoded; None if it does not answer, or not with JSON."""
    host = settings.gateway_host
    try:
        async with asyncio.timeout(_CALL_S):
            # Not urllib: it would go through the proxy that the environment names for the web.
            reader, writer = await asyncio.open_connection(host, settings.http_port)
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, TimeoutError, ValueError):
        return None
