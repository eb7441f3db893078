"""The processes that serve: Triton (under its launcher) and the gateway; and the driver of rollouts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TypeVar

from features.settings import Settings
from stack.child import Child
from stack.errors import StackError
from stack.logs import set_aside

T = TypeVar("T")

_TRITON = "Triton"
# Begins the line that `python -m inference` writes each time the model is ready and proven.
_PROVEN = "triton ready:"
_POLL_S = 0.1
# Beyond what they take themselves to end in good order.
_GATEWAY_MARGIN_S = 5.0
_TRITON_GRACE_S = 30.0
_PROVER_GRACE_S = 2.0
_DRIVER_GRACE_S = 5.0
# Before a driver that has ended is started again.
_DRIVER_PAUSE_S = 1.0


class Services:
    """Started together; ended one by one, the gateway first: its last calls must still find Triton.

    The driver answers no request: it is started again when it ends, and the others serve on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[tuple[Child, float]] = []
        logs = settings.state_dir / "log"
        self._triton_log, self._gateway_log = logs / "inference.log", logs / "gateway.log"
        self._driver_log = logs / "rollout.log"
        self._driver: asyncio.Task[None] | None = None
        # Here and not at each start: a second start, after a publish, goes on in the same files.
        for log in (self._triton_log, self._gateway_log, self._driver_log):
            set_aside(log)

    async def start(self) -> None:
        """Starts Triton, unless an address of one is set, and the gateway. Returns before they are ready."""
        if self._settings.triton_address is None:
            triton = await Child.start(_TRITON, ["inference"], log=self._triton_log)
            self._running.append((triton, _TRITON_GRACE_S))
        gateway = await Child.start("the gateway", ["gateway"], log=self._gateway_log)
        self._running.append((gateway, self._settings.drain_s + _GATEWAY_MARGIN_S))
        self._driver = asyncio.create_task(self._keep_driver())

    async def _keep_driver(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # no process or no space at the moment
                driver = await Child.start(
                    "the driver of rollouts", ["rollout", "drive"], log=self._driver_log
                )
                try:
                    await driver.wait()
                finally:
                    await driver.stop(_DRIVER_GRACE_S)
            await asyncio.sleep(_DRIVER_PAUSE_S)

    async def triton_proven(self) -> None:
        """Returns when it is known that the model gave the known answer to a known request.

        Raises:
            StackError: it did not, or not in time.
        """
        if self._settings.triton_address is not None:
            await self._prove_once()
            return
        (triton,) = (child for child, _ in self._running if child.name == _TRITON)
        try:
            async with asyncio.timeout(self._settings.triton_ready_s):
                while not triton.has_said(_PROVEN):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise StackError(f"Triton has not proven itself; its log is {triton.log}") from error

    async def _prove_once(self) -> None:
        """Asks a Triton that is not ours: with its address set, the launcher proves it once and ends."""
        prover = await Child.start(
            f"the proof of Triton at {self._settings.triton_address}", ["inference"], log=self._triton_log
        )
        try:
            status = await prover.wait()
        finally:
            await prover.stop(_PROVER_GRACE_S)
        if status:
            raise prover.ended(status)

    async def stop(self) -> None:
        """Ends them; returns when they are gone."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.wait({self._driver})
            self._driver = None
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
