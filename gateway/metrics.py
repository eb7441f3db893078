"""Prometheus metrics of a worker. They add up over workers through prometheus_client's multiprocess files.

On the request path a figure is appended to a list, nothing more; `flush` puts what has gathered into the
metrics, a few times a second. Observing each figure at once took half of the gateway's own time per request.

`prepare` must run before any metric is made, hence before a worker is started.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter as Count
from collections.abc import Collection, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from client.riptide.v1 import recommender_pb2 as pb
from gateway.model_inputs import Row
from gateway.page import Degraded

FLUSH_INTERVAL_S = 0.25

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5)
"""0.2 is what the service level asks of the p99 (`loadtest/slo.toml`): who kept it can be counted."""
_LAG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_METHODS = pb.DESCRIPTOR.services_by_name["Recommender"].methods
_CODES = ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE")
_OUTCOMES = ("FULL", *(reason.value for reason in Degraded if reason is not Degraded.NO))
_Mode: TypeAlias = Literal["livesum", "livemin", "livemax", "livemostrecent"]
"""What becomes of the figures of several workers."""
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_SHARES = tuple(tenths / 10 for tenths in range(11))


def prepare(folder: Path) -> None:
    """Empties the folder that the workers' figures are written to, and names it to them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[_FOLDER_VARIABLE] = str(folder.resolve())


class _Restarts(Collector):
    """What the parent process counts. Metrics of its own it has none: those are files that workers write."""

    def __init__(self) -> None:
        self.count = 0

    def collect(self) -> Iterable[Metric]:
        text = "Workers that ended by themselves and were started again."
        yield CounterMetricFamily("riptide_worker_restarts", text, value=self.count)


_RESTARTS = _Restarts()


def worker_restarted() -> None:
    """Counts, in the parent process, a worker that ended by itself."""
    _RESTARTS.count += 1


def forget_gauges(pid: int) -> None:
    """Leaves out the gauges of a worker that has died; its counters stay."""
    if folder := os.environ.get(_FOLDER_VARIABLE):
        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]  # ships without annotations


def exposition() -> bytes:
    """All workers' metrics in Prometheus' text format, of dead workers too: a counter must not fall."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # ships without annotations
    registry.register(_RESTARTS)
    return generate_latest(registry)


class _Samples:
    """A histogram whose samples gather in lists, one for each set of label values, until they are flushed."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._histogram = Histogram(name, text, labels, buckets=buckets, registry=registry)
        self._bounds = np.array(buckets)
        self._gathered: dict[tuple[str, ...], list[float]] = {}

    def of(self, *labels: str) -> list[float]:
        """The list to append samples to. Keep it only until the next flush."""
        gathered = self._gathered.get(labels)
        if gathered is None:
            gathered = self._gathered[labels] = []
        return gathered

    def flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for labels, samples in gathered.items():
            child = self._histogram.labels(*labels) if labels else self._histogram
            # What `observe` does for one sample, for all at once: a bucket counts what is at most its bound.
            # prometheus_client has no public way; the lock file pins the version that this is written for.
            places, counts = np.unique(np.searchsorted(self._bounds, samples), return_counts=True)
            for place, count in zip(places.tolist(), counts.tolist(), strict=True):
                child._buckets[place].inc(count)
            child._sum.inc(float(np.sum(samples)))


class _Counts:
    """A counter that gathers, likewise."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        known: Iterable[tuple[str, ...]] = (),
    ) -> None:
        """`known`: label values that are there from the start, as 0: a rate over the first count of a series
        that was not there before is none."""
        self._counter = Counter(name, text, labels, registry=registry)
        for values in known:
            self._counter.labels(*values)
        self._gathered: Count[tuple[str, ...]] = Count()

    def expect(self, *labels: str) -> None:
        """These label values may come, and are 0 until they do; see `known`."""
        self._counter.labels(*labels)

    def add(self, count: int, *labels: str) -> None:
        self._gathered[labels] += count

    def flush(self) -> None:
        gathered, self._gathered = self._gathered, Count()
        for labels, count in gathered.items():
            (self._counter.labels(*labels) if labels else self._counter).inc(count)


class Metrics:
    """The metrics of one worker process; make one per process, and `flush` it now and then and at the end."""

    def __init__(self) -> None:
        registry = CollectorRegistry()

        def gauge(name: str, text: str, mode: _Mode) -> Gauge:
            return Gauge(name, text, registry=registry, multiprocess_mode=mode)

        self._expected: set[tuple[int, str]] = set()
        self._answered: dict[tuple[str, str], list[float]] = {}
        """Seconds that calls took, by method and code: their number is what `_requests` is to count."""
        self._requests = _Counts(
            "riptide_requests",
            "Calls answered.",
            ["method", "code"],
            registry,
            known=product([method.name for method in _METHODS], _CODES),
        )
        self._vectors = _Counts(
            "riptide_user_vectors",
            "User vectors needed: `cached`, `lagging` (cached, and outdated), or `encoded` by the model in "
            "the request.",
            ["source"],
            registry,
            known=(("cached",), ("lagging",), ("encoded",)),
        )
        self._encoder_waits = _Counts(
            "riptide_encoder_waits", "Requests that waited for the encoder.", [], registry
        )
        self._refreshes = _Counts(
            "riptide_vector_refreshes",
            "User vectors to be refreshed off the request path: `stored`, or `dropped` until the user's next "
            "read, as more users waited than the encoder takes in half a minute.",
            ["outcome"],
            registry,
            known=(("stored",), ("dropped",)),
        )
        self._lag = _Samples(
            "riptide_vector_lag_seconds",
            "From the first event that a refreshed vector covers anew, or the read that found it outdated, "
            "to the vector being stored.",
            [],
            _LAG_SECONDS,
            registry,
        )
        self._backlog = gauge(
            "riptide_encoder_backlog", "Users who wait for the encoder, also where there is none.", "livesum"
        )
        self._oldest = gauge(
            "riptide_encoder_oldest_seconds",
            "How long the user has waited for the encoder who came first.",
            "livemax",
        )
        self._pages = _Counts(
            "riptide_pages",
            "Pages answered, by the version and the cohort that they name: `FULL`, or why they are not the "
            "full answer of the model.",
            ["version", "cohort", "outcome"],
            registry,
        )
        self._events = _Counts(
            "riptide_events",
            "Events received: `recorded` or `duplicate`.",
            ["outcome"],
            registry,
            known=(("recorded",), ("duplicate",)),
        )
        self._duration = _Samples(
            "riptide_request_duration_seconds",
            "From a call's arrival in the gateway to its answer, of calls that end well: refusals are quick.",
            ["method"],
            _SECONDS,
            registry,
        )
        self._stage = _Samples(
            "riptide_stage_duration_seconds",
            "Time of one stage, by version; of `features` and `model` there is one sample per batch.",
            ["stage", "version"],
            _SECONDS,
            registry,
        )
        self._batch = _Samples(
            "riptide_batch_rows", "Requests joined into one call of Triton.", [], _ROWS, registry
        )
        self._overlap = _Samples(
            "riptide_shadow_overlap_ratio",
            "Share of the live page's top 10 that the candidate's unseen answer to the same request has.",
            ["version"],
            _SHARES,
            registry,
        )
        self._shadow_failures = _Counts(
            "riptide_shadow_failures", "Requests that the candidate failed unseen.", ["version"], registry
        )

        self._in_flight = gauge("riptide_requests_in_flight", "Calls that are not answered yet.", "livesum")
        self._ready = gauge(
            "riptide_model_ready",
            "1 if the worker can call a version for everybody, else 0; of several workers the lowest.",
            "livemin",
        )
        self._stable = gauge(
            "riptide_stable_version", "The version that all calls but a rollout's go to.", "livemostrecent"
        )
        self._candidate = gauge(
            "riptide_candidate_version",
            "The version that a rollout is of; 0: there is none.",
            "livemostrecent",
        )
        self._candidate_share = gauge(
            "riptide_candidate_traffic_ratio", "Share of the users that it answers.", "livemostrecent"
        )

    def answered(self, method: str, code: str, duration_s: float) -> None:
        """Counts a call."""
        gathered = self._answered.get((method, code))
        if gathered is None:
            gathered = self._answered[method, code] = []
        gathered.append(duration_s)

    def page(self, version: int, cohort: str, outcome: str) -> None:
        """Counts a page: `FULL`, or why it is not the full answer of the model."""
        self._pages.add(1, str(version), cohort, outcome)

    def stages(self, version: int, queue_ms: Sequence[float], page_ms: Sequence[float]) -> None:
        """Counts the stages that each request has of its own, of the full answers of one batch."""
        label = str(version)
        self._stage.of("queue", label).extend([ms / 1000 for ms in queue_ms])
        self._stage.of("page", label).extend([ms / 1000 for ms in page_ms])

    def batch(self, version: int, rows: Sequence[Row], features_ms: float, model_ms: float) -> None:
        """Counts a call of Triton."""
        encoded = sum(row.answer is None for row in rows)
        if encoded:
            self._vectors.add(encoded, "encoded")
        lagging = sum(row.behind and row.answer is not None for row in rows)
        if lagging:
            self._vectors.add(lagging, "lagging")
        self._vectors.add(len(rows) - encoded - lagging, "cached")
        label = str(version)
        self._batch.of().append(len(rows))
        self._stage.of("features", label).append(features_ms / 1000)
        self._stage.of("model", label).append(model_ms / 1000)

    def waits_for_encoder(self) -> None:
        """Counts a request that waits for the encoder."""
        self._encoder_waits.add(1)

    def refreshed(self, lags_s: Sequence[float]) -> None:
        """Counts vectors that were refreshed and stored, each with its lag."""
        self._refreshes.add(len(lags_s), "stored")
        self._lag.of().extend(lags_s)

    def refresh_dropped(self) -> None:
        """Counts a user who fell out of the encoder's queue."""
        self._refreshes.add(1, "dropped")

    def backlog(self, users: int, oldest_s: float) -> None:
        """Says how many users wait for the encoder, and how long the first of them has."""
        self._backlog.set(users)
        self._oldest.set(oldest_s)

    def shadowed(self, version: int, overlaps: Sequence[float], failed: int = 0) -> None:
        """Counts what the candidate answered, or failed, unseen."""
        self._overlap.of(str(version)).extend(overlaps)
        if failed:
            self._shadow_failures.add(failed, str(version))

    def in_flight(self, calls: int) -> None:
        """Says how many calls are not answered yet."""
        self._in_flight.set(calls)

    def serving(self, stable: int, candidate: int, percent: float, *, ready: bool) -> None:
        """Says where traffic goes; `candidate` 0: all to `stable`."""
        self._ready.set(ready)
        self._stable.set(stable)
        self._candidate.set(candidate)
        self._candidate_share.set(percent / 100)

    def expect_pages(self, answering: Collection[tuple[int, str]]) -> None:
        """These versions and cohorts may have pages of any outcome, which are 0 until they come."""
        for version, cohort in answering:
            if (version, cohort) not in self._expected:
                self._expected.add((version, cohort))
                for outcome in _OUTCOMES:
                    self._pages.expect(str(version), cohort, outcome)

    def events(self, recorded: int, duplicates: int) -> None:
        """Counts recorded events."""
        self._events.add(recorded, "recorded")
        self._events.add(duplicates, "duplicate")

    def flush(self) -> None:
        """Puts what has gathered where a scrape finds it."""
        answered, self._answered = self._answered, {}
        for (method, code), durations_s in answered.items():
            self._requests.add(len(durations_s), method, code)
            if code == "OK":
                self._duration.of(method).extend(durations_s)
        counts = (self._requests, self._vectors, self._pages, self._events)
        for metric in (*counts, self._encoder_waits, self._refreshes, self._shadow_failures):
            metric.flush()
        for samples in (self._duration, self._stage, self._batch, self._lag, self._overlap):
            samples.flush()


class _Uncounted:
    """Takes every figure, and forgets it."""

    def __getattr__(self, name: str) -> Any:
        return _forget


def _forget(*_: object, **__: object) -> None:
    pass


def uncounted() -> Metrics:
    """Metrics that count nothing: what counting costs is measured against them."""
    return cast(Metrics, _Uncounted())
