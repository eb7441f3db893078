"""The two processes that serve: Triton (under its launcher) and the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from features.settings import Settings
from stack.child import Child
from stack.errors import StackError

T = TypeVar("T")

_TRITON = "Triton"
# Begins the line that `python -m inference` writes each time the model is ready and proven.
_PROVEN = "triton ready:"
_POLL_S = 0.1
# Beyond what they take themselves to end in good order.
_GATEWAY_MARGIN_S = 5.0
_TRITON_GRACE_S = 30.0


class Services:
    """Started together; ended one by one, the gateway first: its last calls must still find Triton."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[tuple[Child, float]] = []

    @property
    def running(self) -> bool:
        """Whether they have been started, and not stopped since."""
        return bool(self._running)

    async def start(self) -> None:
        """Starts Triton, unless an address of one is set, and the gateway. Returns before they are ready."""
        logs = self._settings.state_dir / "log"
        if self._settings.triton_address is None:
            triton = await Child.start(_TRITON, ["inference"], log=logs / "inference.log")
            self._running.append((triton, _TRITON_GRACE_S))
        gateway = await Child.start("the gateway", ["gateway"], log=logs / "gateway.log")
        self._running.append((gateway, self._settings.drain_s + _GATEWAY_MARGIN_S))

    async def triton_proven(self) -> None:
        """Returns when Triton's launcher says that the model gave the known answer to a known request.

        Raises:
            StackError: it does not say so in time.
        """
        launchers = [child for child, _ in self._running if child.name == _TRITON]
        try:
            async with asyncio.timeout(self._settings.triton_ready_s):
                while not all(child.has_said(_PROVEN) for child in launchers):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise StackError(f"Triton has not proven itself; its log is {launchers[0].log}") from error

    async def stop(self) -> None:
        """Ends them; returns when they are gone."""
        while self._running:
            child, grace_s = self._running[-1]
            await child.stop(grace_s)
            self._running.pop()

    async def beside(self, work: Coroutine[object, object, T]) -> T:
        """The result of `work`, done while the services run; StackError once one of them ends by itself."""
        task = asyncio.ensure_future(work)
        ends = {asyncio.ensure_future(child.wait()): child for child, _ in self._running}
        try:
            await asyncio.wait({task, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for end, child in ends.items():
                if end.done():
                    raise child.ended(end.result())
            return await task
        finally:
            for future in (task, *ends):
                future.cancel()
            await asyncio.gather(task, *ends, return_exceptions=True)
