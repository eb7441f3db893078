"""`stack run`: from whatever is there to a live recommendation, then up until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from rich.console import Console

from features.settings import Settings
from stack.child import adopt_orphans, end_orphans
from stack.instance import announce, only_one
from stack.ports import check_ports
from stack.readiness import until_ready
from stack.services import Services
from stack.steps import Plan, check_triton, newest_version, prepare

_ORPHANS_GRACE_S = 10.0


def run(settings: Settings, plan: Plan, console: Console, *, how_to_end: str) -> None:
    """Brings everything up, stays until SIGINT, SIGTERM or SIGHUP, and leaves no process behind.

    Raises:
        StackError: something could not be made or started, or ended by itself.
    """
    with only_one(settings.state_dir):
        check_ports(settings)
        adopt_orphans()
        try:
            asyncio.run(_until_signalled(settings, plan, console, how_to_end))
        finally:
            end_orphans(_ORPHANS_GRACE_S)


async def _until_signalled(settings: Settings, plan: Plan, console: Console, how_to_end: str) -> None:
    work = asyncio.ensure_future(_serve(settings, plan, console, how_to_end))
    asked = False

    def end() -> None:
        nonlocal asked
        if not asked:  # a second signal must not cut the ending short: it is bounded anyway
            asked = True
            # First: a terminal that is gone, or a full disk, must not keep it up.
            work.cancel()
            with contextlib.suppress(OSError):
                announce(settings.state_dir, "stopping")
            with contextlib.suppress(OSError):
                console.print("\nending")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        await work
    except asyncio.CancelledError:
        if not asked:
            raise


async def _serve(settings: Settings, plan: Plan, console: Console, how_to_end: str) -> None:
    begun = time.monotonic()
    services = Services(settings)
    try:
        version = newest_version(settings)
        if version is not None:
            # Triton takes seconds to load a model: let it, while the steps find that there is nothing to do.
            await services.start()
        elif settings.triton_address is None:
            # What Triton cannot work in is said before the minutes of training, not after them.
            await check_triton()
        # Not above: it needs Arrow, and Triton need not wait for that.
        from stack.welcome import welcome

        await services.beside(prepare(plan))
        if newest_version(settings) != version:
            await services.stop()
            await services.start()
        console.print("waiting for Triton and the gateway")
        await services.beside(until_ready(settings))
        await services.beside(services.triton_proven())
        console.print(f"ready after {time.monotonic() - begun:.0f} s\n")
        await services.beside(welcome(settings, plan.data, console))
        console.print(how_to_end)
        announce(settings.state_dir, "ready")
        await services.beside(_for_ever())
    finally:
        await services.stop()


async def _for_ever() -> None:
    await asyncio.Event().wait()
