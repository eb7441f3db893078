"""Telling the store twice a second what this worker can call and what it has counted."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time

from features.control import ControlStore
from features.figures import Report
from features.store import StoreError
from gateway.figures import Figures
from gateway.routing import Router

_INTERVAL_S = 0.5
_WRITE_TIMEOUT_S = 2.0

log = logging.getLogger("riptide.gateway.reports")


class Reports:
    """The report of one worker, which is written again and again."""

    def __init__(self, control: ControlStore, router: Router, figures: Figures) -> None:
        self._control = control
        self._router = router
        self._figures = figures
        # The time: a pid comes again, and what the process before counted must not be taken for ours.
        self._source = f"{socket.gethostname()}/{os.getpid()}/{time.time_ns()}"
        self._failing = False

    async def write_for_good(self) -> None:
        """Writes until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(_INTERVAL_S)

    async def write(self) -> None:
        """Writes the report as of now. It is cumulative: one that is lost is made good by the next."""
        router = self._router
        report = Report(
            at=time.time(),
            revision=router.revision,
            ready=frozenset(router.ready),
            refused=dict(router.refused),
            versions=self._figures.flush(),
        )
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._control.put_report(self._source, report.encode())
        except (StoreError, TimeoutError) as error:
            if not self._failing:  # else it would be said twice a second
                log.warning("figures are not reported: %s", str(error) or "no answer in time")
            self._failing = True
        else:
            self._failing = False
