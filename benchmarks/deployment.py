"""A deployment of the benchmark's own: Triton, gateways, the driver; on free ports, ended with the block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.bench import Bench, Server
from benchmarks.errors import BenchmarkError
from benchmarks.models import USERS, Model
from benchmarks.processes import free_port, http_get, listens, programs, running, serves_model, wait
from benchmarks.target import Target, recommend
from features.encoder_name import encoder_name
from features.settings import Settings

_PATIENT = {"model_timeout_ms": 20_000, "default_deadline_ms": 20_000}
"""Slow answers are wanted here, not fallback pages."""
_WARM_AT_ONCE = 64
_WARM_PAUSE_S = 0.5
_WARM_TIMEOUT_S = 60.0
_ENCODER_READY_S = 60.0


@dataclass(slots=True)
class Deployment:
    """One Triton with its store and users, and what is started on them."""

    bench: Bench
    name: str
    model: Model
    settings: Settings
    users: list[str]
    triton: psutil.Process
    _stack: ExitStack = field(repr=False)
    driver: psutil.Process | None = None

    def gateway(
        self,
        name: str = "",
        *,
        workers: int = 1,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Server:
        """A gateway, started and warm: every user's vector and page are kept.

        `variables`: of its environment, beside its settings.

        Raises:
            BenchmarkError: it does not start.
        """
        name = name or self.name
        grpc_port, http_port = free_port(), free_port()
        log = self.bench.log(f"{_file_name(name)}-gateway")
        given = {"workers": workers, **_PATIENT, **settings}
        process = self._stack.enter_context(
            running(
                log,
                "gateway",
                variables=variables,
                **self._environment(grpc_port=grpc_port, http_port=http_port, **given),
            )
        )
        wait(f"{name}: the gateway", log, process, lambda: serves_model(http_port))
        processes = {"gateway": process, "Triton": self.triton}
        if self.driver is not None:
            processes["driver"] = self.driver
        target = recommend(grpc_port, self.users)
        warm(target)
        return Server(name, target, processes, http_port)

    @contextmanager
    def for_a_while(self) -> Iterator[Deployment]:
        """The same deployment; gateways that are started on this end with the block."""
        with ExitStack() as stack:
            yield replace(self, _stack=stack)

    def drive(self) -> bool:
        """Starts the driver; whether it got an encoder ready in time.

        Raises:
            BenchmarkError: it does not start.
        """
        port = free_port()
        log = self.bench.log(f"{_file_name(self.name)}-driver")
        self.driver = self._stack.enter_context(
            running(log, "rollout", "drive", **self._environment(operator_port=port))
        )
        wait(f"{self.name}: the driver", log, self.driver, lambda: listens(port))
        encoder = encoder_name(self.settings.model_name)
        end = time.monotonic() + _ENCODER_READY_S
        while http_get(self.settings.triton_http_port, f"/v2/models/{encoder}/versions/1/ready") is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def _environment(self, **settings: object) -> dict[str, Any]:
        unknown = [name for name in settings if name not in Settings.model_fields]
        if unknown:
            raise BenchmarkError(f"this gateway has no setting {unknown[0]}")
        return {**_own(self.settings), **settings}


@contextmanager
def deployed(
    bench: Bench,
    name: str,
    model: Model,
    *,
    users: int = USERS,
    drive: bool = False,
    store: str = "lmdb",
    prepare: Callable[[Path], None] = lambda repository: None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Deployment]:
    """Triton with the model, and a store filled with users; gateways are started on it.

    Args:
        drive: whether a driver keeps the model's encoder ready.
        prepare: called with the model repository before Triton starts.
        variables: of Triton's environment.

    Raises:
        BenchmarkError, StoreError: something does not start, or the store cannot be filled.
    """
    folder = bench.work / _file_name(name)
    folder.mkdir(parents=True)
    ports = {f"triton_{kind}_port": free_port() for kind in ("http", "grpc", "metrics")}
    settings = bench.settings.model_copy(
        update={
            "state_dir": folder / "var",
            "model_repository": model.linked(folder / "repository"),
            "store": store,
            **ports,
        }
    )
    with ExitStack() as stack:
        (folder / "var").mkdir()
        prepare(settings.model_repository)
        log = bench.log(f"{_file_name(name)}-triton")
        triton = stack.enter_context(running(log, "inference", variables=variables, **_own(settings)))
        ids = model.fill(settings, users)
        deployment = Deployment(bench, name, model, settings, ids, triton, stack)
        wait(f"{name}: Triton", log, triton, lambda: b"triton ready" in log.read_bytes())
        if drive and not deployment.drive():
            bench.say(f"  {name}: there is no encoder in this build")
        yield deployment


def warm(target: Target) -> None:
    """Asks for each body's page twice: the first time it is encoded, the second finds what is kept.

    Raises:
        BenchmarkError: a call fails.
    """
    asyncio.run(_warm(target))


async def _warm(target: Target) -> None:
    at_once = asyncio.Semaphore(_WARM_AT_ONCE)
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{target.port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(target.path)

        async def call(body: bytes) -> None:
            async with at_once:
                await method(body, timeout=_WARM_TIMEOUT_S)

        try:
            for _ in range(2):
                await asyncio.gather(*(call(body) for body in target.bodies))
                await asyncio.sleep(_WARM_PAUSE_S)  # answers are written after the pages have gone
        except grpc.aio.AioRpcError as error:
            raise BenchmarkError(f"a first call failed: {error.code().name}: {error.details()}") from error


def _own(settings: Settings) -> dict[str, Any]:
    """The settings that a deployment's processes must have in common."""
    names = ("state_dir", "model_repository", "model_name", "store", "triton_ready_s")
    ports = ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
    return {name: getattr(settings, name) for name in (*names, *ports)} | programs(settings)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
