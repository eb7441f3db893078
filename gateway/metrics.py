"""Prometheus metrics of a worker. They add up over workers through prometheus_client's multiprocess files.

`prepare` must run before any metric is made, hence before this module is imported by a worker.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.model_inputs import Row

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def prepare(folder: Path) -> None:
    """Empties the folder that the workers' figures are written to, and names it to them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[_FOLDER_VARIABLE] = str(folder.resolve())


def exposition() -> bytes:
    """All workers' metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # ships without annotations
    return generate_latest(registry)


def forget_worker(pid: int) -> None:
    """Drops what only a living process has (gauges); counters of the dead stay, as they must not fall."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]  # ships without annotations


class Metrics:
    """The metrics of one worker process; make one per process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._requests = Counter(
            "riptide_requests_total", "Calls answered.", ["method", "code"], registry=registry
        )
        self._duration = Histogram(
            "riptide_request_duration_seconds",
            "From a call's arrival in the gateway to its answer.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stage = Histogram(
            "riptide_stage_duration_seconds",
            "Time of one stage, by the version that answered; of `features` and `model` one value per batch.",
            ["stage", "version"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "riptide_batch_rows", "Requests joined into one call of Triton.", buckets=_ROWS, registry=registry
        )
        self._vectors = Counter(
            "riptide_user_vectors_total",
            "User vectors needed: `cached`, or `encoded` by the model in the request.",
            ["source"],
            registry=registry,
        )
        self._degraded = Counter(
            "riptide_degraded_total",
            "Pages that are not the full answer of the model.",
            ["reason"],
            registry=registry,
        )
        self._events = Counter(
            "riptide_events_total",
            "Events received: `recorded` or `duplicate`.",
            ["outcome"],
            registry=registry,
        )
        self._cached, self._encoded = self._vectors.labels("cached"), self._vectors.labels("encoded")

    def answered(self, method: str, code: str, duration_s: float) -> None:
        """Counts a call."""
        self._requests.labels(method, code).inc()
        self._duration.labels(method).observe(duration_s)

    def page(self, version: int, queue_ms: float, page_ms: float, degraded: str | None) -> None:
        """Counts a page; `degraded` is the reason, None if it is the model's full answer."""
        self._stage.labels("queue", version).observe(queue_ms / 1000)
        self._stage.labels("page", version).observe(page_ms / 1000)
        if degraded:
            self._degraded.labels(degraded).inc()

    def batch(self, version: int, rows: Sequence[Row], features_ms: float, model_ms: float) -> None:
        """Counts a call of Triton."""
        self._batch.observe(len(rows))
        encoded = sum(row.answer is None for row in rows)
        if encoded:
            self._encoded.inc(encoded)
        self._cached.inc(len(rows) - encoded)
        self._stage.labels("features", version).observe(features_ms / 1000)
        self._stage.labels("model", version).observe(model_ms / 1000)

    def events(self, recorded: int, duplicates: int) -> None:
        """Counts recorded events."""
        self._events.labels("recorded").inc(recorded)
        self._events.labels("duplicate").inc(duplicates)
