"""The newest state of the rollout: a stream from its driver, kept open while somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from time import monotonic

import grpc

from client.riptide.v1 import rollouts_pb2 as pb
from client.riptide.v1.rollouts_pb2_grpc import RolloutsStub
from features.operator_token import TOKEN_METADATA, watching_token
from features.token_file import TokenError
from gateway.console.connect import ConnectError
from gateway.console.forward import Backend

_IDLE_S = 15.0
"""The stream is closed when nobody has asked for this long."""
_FIRST_S = 3.0
_SILENCE_S = 5.0
"""The driver speaks each second."""

log = logging.getLogger("riptide.gateway.console")


class Watched:
    """One stream for all who look. To look takes no token: the gateway shows one that lets watch alone."""

    def __init__(self, backend: Backend, state_dir: Path) -> None:
        self._backend = backend
        self._state_dir = state_dir
        self._stream: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self._said: pb.RolloutsWatchResponse | ConnectError | None = None
        self._asked_at = 0.0

    async def newest(self) -> pb.RolloutsWatchResponse:
        """What the driver has said last.

        Raises:
            ConnectError: it does not answer, or refuses.
        """
        self._asked_at = monotonic()
        if self._stream is None or self._stream.done():
            self._said = None
            self._heard.clear()
            self._stream = asyncio.create_task(self._follow())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._heard.wait()
        said = self._said
        if said is None:
            raise ConnectError(grpc.StatusCode.UNAVAILABLE, self._backend.absent)
        if isinstance(said, ConnectError):
            raise ConnectError(said.code, str(said))  # one for each who waits
        return said

    async def close(self) -> None:
        """Ends the stream."""
        if self._stream is not None:
            self._stream.cancel()
            await asyncio.wait([self._stream])

    async def _follow(self) -> None:
        """Keeps what the driver says until nobody has asked for a while, or it fails."""
        try:
            token = watching_token(self._state_dir)
        except (TokenError, OSError) as error:
            log.error("the operator's token cannot be read: %s", error)
            self._hear(ConnectError(grpc.StatusCode.UNAVAILABLE, "the operator's token cannot be read"))
            return
        call = RolloutsStub(self._backend.channel).Watch(
            pb.RolloutsWatchRequest(), metadata=((TOKEN_METADATA, token),)
        )
        try:
            while monotonic() - self._asked_at < _IDLE_S:
                async with asyncio.timeout(_SILENCE_S):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    self._hear(ConnectError(grpc.StatusCode.UNAVAILABLE, self._backend.absent))
                    return
                self._hear(answer)
        except grpc.aio.AioRpcError as error:
            self._hear(self._backend.error(error))
        except TimeoutError:
            self._hear(ConnectError(grpc.StatusCode.UNAVAILABLE, self._backend.absent))
        finally:
            call.cancel()

    def _hear(self, said: pb.RolloutsWatchResponse | ConnectError) -> None:
        self._said = said
        self._heard.set()
