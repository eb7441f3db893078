"""The driver's process: the driver, the operators' service on the operator port, and what keeps the encoders
in step with the recommender, until SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from features.operator_token import operator_token
from features.ports import port_problem
from features.settings import Settings
from features.state_folder import make_state_folder
from features.store import open_store
from inference.control import open_control
from inference.encoders import Encoders
from inference.proof import open_channel
from rollout.driver import Driver, only_driver
from rollout.errors import RolloutError
from rollout.operate import Operator
from rollout.records import Records
from rollout.service import Service, serve

_STOP_S = 1.0

log = logging.getLogger("riptide.rollout")


async def drive(settings: Settings) -> None:
    """Drives until SIGTERM or SIGINT. A rollout that is under way then goes on with the next driver.

    Raises:
        RolloutError: another driver is at work, or the operator port cannot be used.
        StoreUnavailable: the store cannot be opened.
        TokenError, TritonError, OSError: see `operator_token`, `open_control`.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if problem := port_problem(settings, "operator_port"):
        raise RolloutError(problem)
    make_state_folder(settings.state_dir)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_driver(settings.model_repository / settings.model_name))
        store = open_store(settings)
        stack.push_async_callback(store.close)
        channel = await stack.enter_async_context(open_channel(settings.triton_target))
        driver = Driver(settings, store.control, open_control(settings, channel))
        operator_token(settings.state_dir)  # made now, so that operators find it
        operator = Operator(settings, Records(store.control, settings.model_name))
        service = Service(operator, store.control, settings.model_name, settings.state_dir)
        server = serve(service, f"{settings.operator_host}:{settings.operator_port}")
        await server.start()
        stack.push_async_callback(server.stop, _STOP_S)
        log.info("the driver of %s runs; operators: port %d", settings.model_name, settings.operator_port)
        driving = asyncio.create_task(driver.run())
        following = asyncio.create_task(Encoders(settings, channel).follow())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({driving, following, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in (driving, following) if task.done()]
        for task in (driving, following, stopped):
            task.cancel()
        for task in ended:
            task.result()  # they never end by themselves but by a defect, which is to be seen
        await asyncio.gather(driving, following, stopped, return_exceptions=True)
