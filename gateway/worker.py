"""One worker process: builds the request path, serves it, drains it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from features.settings import Settings
from features.store import open_store
from gateway.answers import Answers
from gateway.batches import Batches
from gateway.exposures import Exposures
from gateway.figures import Figures
from gateway.methods import Methods
from gateway.metrics import FLUSH_INTERVAL_S, Metrics, uncounted
from gateway.pin import Pins
from gateway.recommend import Recommend
from gateway.refresher import Refresher
from gateway.reports import Reports
from gateway.routing import Router
from gateway.scorer import Scorer, triton_channel
from gateway.servicer import SERVICE, Recommender
from gateway.shadow import Shadow
from gateway.tracing import exported
from gateway.vectors import Vectors
from gateway.wire import Lines

MODEL_SERVICE = "riptide.model"
"""Health service that is SERVING while a model version is; without one the gateway serves fallback pages."""

_OTHER_CALLS = 1000
"""Calls that gRPC lets in beside those that the servicer counts and limits: health checks, calls whose
request has not come whole, calls being refused. It bounds memory; no metric counts what is beyond it."""
_HEALTH_INTERVAL_S = 0.25
_LAST_TRACES_S = 2.0
_QUIET_LOOK_S = 0.01
_QUIET_LOOKS = 5

log = logging.getLogger("riptide.gateway.worker")


async def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, then drains; the exit status, 1 if it had to end by itself.

    Raises:
        RoutingError: no version is published.
        StoreUnavailable: the store cannot be opened.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    channel = triton_channel(settings.triton_target)
    store = open_store(settings)
    router = Router(settings, channel, store.control)
    scorer, figures = Scorer(channel), Figures()
    metrics = Metrics() if settings.metrics else uncounted()
    tracing = exported(settings)
    model_timeout_s, lines = settings.model_timeout_ms / 1000, Lines()
    refresher = Refresher(store, router, scorer, metrics)
    batches = Batches(
        store,
        router,
        scorer,
        metrics,
        figures,
        Answers(store),
        Shadow(router, scorer, figures, metrics, timeout_s=model_timeout_s),
        Vectors(refresher, metrics),
        lines,
        max_batch=settings.max_batch,
        join=settings.coalesce,
    )
    exposures = Exposures(store.control)
    reports = Reports(store.control, router, figures)
    server = grpc.aio.server(
        maximum_concurrent_rpcs=settings.max_in_flight + _OTHER_CALLS,
        # All workers listen on one port; the kernel spreads connections over them.
        options=[("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", 1 << 20)],
    )
    methods = Methods(
        router,
        store,
        Recommend(router, batches, figures, exposures),
        exposures,
        refresher,
        Pins(router, settings.state_dir),
        metrics,
        model_timeout_s,
        lines,
    )
    servicer = Recommender(
        methods,
        metrics,
        max_in_flight=settings.max_in_flight,
        default_deadline_s=settings.default_deadline_ms / 1000,
        access_log=settings.access_log,
        tracing=tracing,
    )
    server.add_generic_rpc_handlers((servicer.handlers,))
    status = health.HealthServicer()
    server.add_generic_rpc_handlers((_health_handlers(status),))
    if settings.reflection:
        reflection.enable_server_reflection(
            (
                SERVICE.full_name,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ),
            server,
        )
    server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")

    await router.look()
    # What is there now stays, and requests make no cycles: the garbage collector may look more rarely than
    # every 700 objects, which is every few requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    await server.start()
    let_the_event_loop_run()
    for name in ("", SERVICE.full_name):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("gateway worker listens on %s:%d", settings.host, settings.grpc_port)
    beside = [
        asyncio.create_task(work)
        for work in (
            router.look_for_good(),
            reports.write_for_good(),
            exposures.write_for_good(),
            refresher.run_for_good(),
            _report_model(status, router),
            _flush_metrics(metrics, refresher, servicer, router),
        )
    ]
    stopped = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([stopped, *beside], return_when=asyncio.FIRST_COMPLETED)
    for task in ended - {stopped}:
        # These never end by themselves. Without one of them the worker is blind: its parent starts another.
        log.critical("a task beside the server failed", exc_info=task.exception())

    log.info("draining")
    await status.enter_graceful_shutdown()
    await _until_quiet(servicer, settings.drain_s / 2)
    await server.stop(settings.drain_s / 2)
    for task in (stopped, *beside):
        task.cancel()
    await asyncio.gather(stopped, *beside, return_exceptions=True)
    await batches.close()
    await exposures.write()
    await reports.write()
    await store.close()
    await channel.close()
    metrics.flush()
    if tracing is not None:
        tracing.close(_LAST_TRACES_S)
    log.info("drained")
    return 0 if stopped in ended else 1


def let_the_event_loop_run() -> None:
    """The other threads, gRPC's and the store's, do not interrupt a thread that runs.

    gRPC's wake up for each of the several events of a call. Where the kernel has them on the core of the
    event loop, each would interrupt it; in the scheduler's batch class they run when it has a pause, or on a
    core that has nothing to do. Threads that they start inherit it.
    """
    try:
        for task in Path("/proc/self/task").iterdir():
            thread = int(task.name)
            with suppress(ProcessLookupError):  # it has ended since
                if thread != os.getpid() and os.sched_getscheduler(thread) == os.SCHED_OTHER:
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may refuse it: calls cost some more CPU then
        log.info("the scheduler's batch class is not to be had: %s", error)


def _health_handlers(status: health.HealthServicer) -> grpc.GenericRpcHandler:
    """`Check` alone. Clients take the UNIMPLEMENTED of `Watch` for healthy, as gRFC A17 says.

    A `Watch` would be a call without an end, for which draining waits; and of several on one service that
    `grpc_health` serves, the first to go takes the others' news with it.
    """
    check = grpc.unary_unary_rpc_method_handler(
        status.Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, {"Check": check}
    )


async def _until_quiet(servicer: Recommender, limit_s: float) -> None:
    """Returns when no call has been in flight for a moment, or after `limit_s`.

    gRPC finishes the calls that it has handed over when it is told to stop, and cancels those that have
    arrived and wait to be. So that nobody's call is cancelled, it is told when nothing waits any more.
    """
    end = time.monotonic() + limit_s
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        quiet = 0 if servicer.in_flight else quiet + 1
        await asyncio.sleep(_QUIET_LOOK_S)


async def _flush_metrics(
    metrics: Metrics, refresher: Refresher, servicer: Recommender, router: Router
) -> None:
    while True:
        metrics.in_flight(servicer.in_flight)
        metrics.backlog(refresher.backlog, refresher.oldest_s)
        metrics.expect_pages(router.answering)
        metrics.serving(*router.shares, ready=router.serving is not None)
        metrics.flush()
        await asyncio.sleep(FLUSH_INTERVAL_S)


async def _report_model(status: health.HealthServicer, router: Router) -> None:
    while True:
        serving = router.serving is not None
        await status.set(
            MODEL_SERVICE,
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        await asyncio.sleep(_HEALTH_INTERVAL_S)
