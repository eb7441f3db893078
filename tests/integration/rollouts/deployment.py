"""A whole Riptide on the tiny model: Triton, gateway, and the driver of rollouts, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from features.record import Event
from features.schema import EventType
from features.settings import Settings
from features.store import open_store
from features.traffic import document_name
from inference.environment import Interpreter
from inference.server import pid_file
from tests.integration.program import READY_S, ROOT, Program, environment_of, processes_of, start, wait_until
from tests.integration.rollouts.load import Load
from tests.integration.rollouts.versions import Versions
from tests.integration.tiny_variant import ITEM_IDS

USERS = [f"user-{number}" for number in range(200)]
_COMMAND_S = 400
"""A candidate loads at the lowest priority: for minutes, where other programs want every core."""


class Deployment:
    """Version 1 is published (kind `first`) and the users are known; `running` starts the processes.

    Tests kill what they like; `wait_ready` waits until the deployment has mended itself. What is awaited here
    lets a load go on; under one, `versions.publish` belongs into a thread.
    """

    def __init__(self, settings: Settings, exports: Mapping[str, Path], interpreter: Interpreter) -> None:
        self.settings = settings
        self.versions = Versions(settings, exports, interpreter)
        self.store = open_store(settings)
        """This process' own opening of the store: LMDB allows one."""
        self.inference: Program | None = None
        self.gateway: Program | None = None
        self.driver: Program | None = None
        self._started: list[Program] = []

    async def prepare(self) -> None:
        """Publishes version 1 and gives each user a history of one to seven items."""
        self.versions.publish("first")
        now = int(time.time())
        await self.store.append(
            [
                Event(user, ITEM_IDS[(7 * number + 11 * place) % len(ITEM_IDS)], EventType.CLICK, now - place)
                for number, user in enumerate(USERS)
                for place in range(1, 2 + number % 7)
            ]
        )

    @contextlib.asynccontextmanager
    async def running(self, *, driver: bool = False) -> AsyncIterator[None]:
        """Starts Triton, the gateway and, if wanted, the driver; inside, all are ready. Ends them all."""
        try:
            self.start_inference()
            self.start_gateway()
            await self.wait_ready()
            if driver:
                await self.start_driver()
            yield
        finally:
            self._end()

    # Processes

    def start_inference(self) -> None:
        """Starts `python -m inference`."""
        self.inference = self._start("inference")

    def start_gateway(self) -> None:
        """Starts `python -m gateway`."""
        self.gateway = self._start("gateway")

    async def start_driver(self) -> None:
        """Starts `python -m rollout drive`, and returns when its port answers."""
        driver = self.driver = self._start("rollout", "drive")
        await asyncio.to_thread(
            wait_until, lambda: self._answers(self.settings.operator_port) or not driver.runs, self.logs
        )
        assert driver.runs, driver.text

    async def wait_ready(self) -> None:
        """Returns when gateway and model serve."""
        serving = {"gateway": "SERVING", "model": "SERVING"}
        await asyncio.to_thread(wait_until, lambda: self.health() == serving, self.logs)

    def health(self) -> dict[str, str]:
        """What `/readyz` says; empty if nobody does. Fails if a program has ended that should run."""
        for program in (self.inference, self.gateway):
            assert program is None or program.runs, program.text
        try:
            url = f"http://127.0.0.1:{self.settings.http_port}/readyz"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return dict(json.loads(answer.read()))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}

    @property
    def triton(self) -> psutil.Process:
        """The `tritonserver` that runs now."""
        return psutil.Process(int(pid_file(self.settings).read_text()))

    @property
    def served(self) -> dict[tuple[str, int], psutil.Process]:
        """Model and version → the process that serves it."""
        found = {}
        for process in self.triton.children():
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # ended, or not yet reaped: without a command line
                if "python_backend_stub" in process.name() and len(process.cmdline()) > 1:
                    place = Path(process.cmdline()[1]).parent
                    found[place.parent.name, int(place.name)] = process
        return found

    @property
    def workers(self) -> list[psutil.Process]:
        """The gateway's workers that run now."""
        assert self.gateway is not None
        return list(psutil.Process(self.gateway.process.pid).children())

    @property
    def processes(self) -> list[psutil.Process]:
        """Every process of this deployment."""
        return processes_of(self.settings.state_dir.parent)

    def logs(self) -> str:
        """All that the programs have said."""
        return "\n".join(f"== {program.output.name}\n{program.text}" for program in self._started)

    # What operators and callers do

    async def run(self, *module: str) -> subprocess.CompletedProcess[str]:
        """Runs `python -m MODULE …` with these settings to its end."""
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=environment_of(self.settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )

    async def record(self) -> dict[str, Any] | None:
        """The rollout's record; None if there is none."""
        document = await self.store.control.read_document(document_name(self.settings.model_name))
        return dict(json.loads(document.value)) if document.revision else None

    async def reaches(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The rollout's record as soon as `condition` holds for it; fails if that takes `READY_S`."""
        record = None
        try:
            async with asyncio.timeout(READY_S):
                while (record := await self.record()) is None or not condition(record):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"the rollout stands at {record}\n{self.logs()}")
        return record

    def load(self, *, rate: float = 120, retries: bool = False, users: Sequence[str] = USERS) -> Load:
        """A load on the gateway; see `Load`."""
        return Load(self.settings.gateway_target, users, rate=rate, retries=retries)

    def _answers(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _start(self, *module: str) -> Program:
        self._started.append(start(self.settings, *module))
        return self._started[-1]

    def _end(self) -> None:
        """Ends what was started, and what it left behind; fails if it left anything."""
        statuses = {
            program.output.name: program.stop() for program in reversed(self._started) if program.runs
        }
        _, left = psutil.wait_procs(self.processes, timeout=20)
        said = [f"{process.pid} {process.info['cmdline']}" for process in left]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert said == [], f"processes left behind\n{self.logs()}"
        assert set(statuses.values()) <= {0}, f"{statuses}\n{self.logs()}"
