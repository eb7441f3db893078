"""The `riptide.v1.Rollouts` service: convert, call, convert. Served on the operator port."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from pydantic import ValidationError

from client.riptide.v1 import rollouts_pb2 as pb
from client.riptide.v1.rollouts_pb2_grpc import RolloutsServicer, add_RolloutsServicer_to_server
from features.control import ControlStore
from features.figures import VersionFigures
from features.operator_token import TOKEN_METADATA, operator_token, watching_token
from features.store import StoreError
from rollout.errors import BadRecord, Crossed, NoSuchVersion, NotPossible
from rollout.heartbeat import read_heartbeat
from rollout.operate import Operator
from rollout.state import Plan, Rollout, mistake
from rollout.window import Look, look

_FIELDS = {"step_s": "step_seconds"}
"""Fields of a plan and those of the request that fill them, where their names differ."""
_WATCH_S = 1.0
_SPAN_S = 10.0
_MOST_CALLS = 64
"""At once, of all operators; each that watches is one."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = logging.getLogger("riptide.rollout.service")


class Service(RolloutsServicer):
    """Lets in who shows the operator's token; to look, also who shows the one that lets watch."""

    def __init__(self, operator: Operator, control: ControlStore, model: str, state_dir: Path) -> None:
        self._operator = operator
        self._control = control
        self._model = model
        self._state_dir = state_dir

    async def Get(self, request: pb.RolloutsGetRequest, context: Context) -> pb.RolloutsGetResponse:
        return pb.RolloutsGetResponse(rollout=await self._done(context, self._operator.get, reads=True))

    async def Start(self, request: pb.RolloutsStartRequest, context: Context) -> pb.RolloutsStartResponse:
        async def start() -> Rollout:
            given: dict[str, Any] = {}
            if request.steps:
                given["steps"] = tuple(request.steps)
            if request.step_seconds:
                given["step_s"] = request.step_seconds
            if request.HasField("shadow_percent"):
                given["shadow_percent"] = request.shadow_percent
            return await self._operator.start(request.version or None, Plan(**given))

        return pb.RolloutsStartResponse(rollout=await self._done(context, start))

    async def SetTraffic(self, request: pb.SetTrafficRequest, context: Context) -> pb.SetTrafficResponse:
        return pb.SetTrafficResponse(
            rollout=await self._done(
                context, lambda: self._operator.set_percent(request.percent, request.version or None)
            )
        )

    async def Promote(self, request: pb.PromoteRequest, context: Context) -> pb.PromoteResponse:
        return pb.PromoteResponse(
            rollout=await self._done(context, lambda: self._operator.promote(request.version or None))
        )

    async def RollBack(self, request: pb.RollBackRequest, context: Context) -> pb.RollBackResponse:
        reason = request.reason or "an operator rolled it back"
        return pb.RollBackResponse(
            rollout=await self._done(
                context, lambda: self._operator.roll_back(reason, request.version or None)
            )
        )

    async def Watch(
        self, request: pb.RolloutsWatchRequest, context: Context
    ) -> AsyncIterator[pb.RolloutsWatchResponse]:
        looks: deque[Look] = deque(maxlen=int(_SPAN_S / _WATCH_S) + 1)
        while True:

            async def get() -> Rollout:
                looks.append(await look(self._control, time.time()))
                return await self._operator.get()

            rollout = await self._done(context, get, reads=True)
            now, before = looks[-1], looks[0]
            yield pb.RolloutsWatchResponse(
                rollout=rollout,
                versions=[
                    _figures(version, figures, max(now.at - before.at, _WATCH_S))
                    for version, figures in sorted(now.since(before).items())
                ],
            )
            await asyncio.sleep(_WATCH_S)

    async def _done(
        self, context: Context, work: Callable[[], Awaitable[Rollout]], *, reads: bool = False
    ) -> pb.Rollout:
        """What the caller gets for `work`; ends the call with the status that fits if it fails.

        `reads`: the token that lets only watch is enough.
        """
        shown = str(dict(context.invocation_metadata() or ()).get(TOKEN_METADATA, "")).encode()
        # Read for each call: there are few, and a token that was replaced holds at once.
        enough = (operator_token, watching_token) if reads else (operator_token,)
        if not any(hmac.compare_digest(shown, token(self._state_dir).encode()) for token in enough):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, f"{TOKEN_METADATA}: is missing, or not the operator's token"
            )
        try:
            rollout = await work()
            beat = await read_heartbeat(self._control, self._model)
        except (NotPossible, BadRecord) as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except Crossed as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except NoSuchVersion as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, mistake(error, _FIELDS))
        except StoreError as error:
            log.error("%s", error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the feature store does not answer; try again")
        return _message(rollout, beat.note if beat is not None else "")


def serve(service: Service, address: str) -> grpc.aio.Server:
    """A server for it; start and stop it yourself.

    Raises:
        RuntimeError: it cannot listen at `address`.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=_MOST_CALLS)
    add_RolloutsServicer_to_server(service, server)
    server.add_insecure_port(address)
    return server


def _message(rollout: Rollout, note: str) -> pb.Rollout:
    percent = rollout.experiment.percent if rollout.experiment is not None else rollout.percent
    return pb.Rollout(
        phase=f"ROLLOUT_PHASE_{rollout.phase.name}",
        stable=rollout.stable,
        candidate=rollout.candidate or 0,
        percent=percent,
        shadow_percent=rollout.shadow_percent,
        steps=rollout.plan.steps,
        step=rollout.step,
        held=rollout.held,
        reason=rollout.reason,
        note=note,
        history=[pb.HistoryEntry(time=entry.time, text=entry.text) for entry in rollout.history],
    )


def _figures(version: int, figures: VersionFigures, span_s: float) -> pb.VersionFigures:
    message = pb.VersionFigures(
        version=version,
        calls_per_second=figures.calls / span_s,
        calls=figures.calls,
        errors=figures.errors,
        degraded=figures.degraded,
        shadow_calls=figures.shadow_calls,
        shadow_errors=figures.shadow_errors,
    )
    if figures.latency.total:
        message.p50_ms, message.p99_ms = figures.latency.quantile(0.5), figures.latency.quantile(0.99)
    if figures.pairs:
        message.overlap = figures.overlap
    if figures.ranked:
        message.drift = figures.drift
    return message
