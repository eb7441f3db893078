"""Reads while events come: how soon a vector is fresh again, and what reads notice of it.

Reads and events are open loops; events come before the first read and until after the last. `large` gets as
many reads as `small`, half of what `small` can answer, and events at a rate that its encoder can follow; then
at several times that rate. Between two rows of a server nobody is read, and then all users have grown older
at once: so reads begin before they are measured, and go on until the encoder has followed, where it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc

from benchmarks import gateway_metrics, generators
from benchmarks.bench import Bench, Figures, Server, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.errors import BenchmarkError
from benchmarks.models import Model, synthetic
from benchmarks.section import Grid, Measured, Ratio, Section
from benchmarks.sizes import ITEMS
from benchmarks.target import recommend, record_events
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub

USERS = 200
SUSTAINED_SHARE = 0.05
"""Of what `large` can encode a second with nothing else to do. An event costs some five encodings within two
minutes, as its user is read all the time here: one at once, and others as the event grows older. Reads want
most of the cores."""
TOO_MANY = 24
EVENTS_PER_READ = 0.05
_CHECKED = 100
_TIMEOUT_S = 20.0
_FOLLOWED_S = 60.0
_SETTLED_S = 40.0
_SETTLE_S = 5.0
"""How long reads go on at the least before they are measured, and at the most: `_SETTLED_S`."""
_BEGUN_S = 60.0
_SPARE_S = 120.0
_BODIES = 20_000
_LAG, _VECTORS, _BACKLOG = (
    "riptide_vector_lag_seconds",
    "riptide_user_vectors_total",
    "riptide_encoder_backlog",
)
_SOURCES = ("cached", "lagging", "encoded")
_WAITS, _REFRESHES = "riptide_encoder_waits_total", "riptide_vector_refreshes_total"


def run(bench: Bench) -> Section:
    """Measures."""
    section = Section(f"Freshness: reads while events come, {ITEMS:,} items, {USERS} users")
    section.more = ["lag p50 s", "lag p99 s", "backlog", "refreshes dropped"]
    section.more += [*(f"{source} %" for source in _SOURCES), "waits %"]
    with bench.kept(section), ExitStack() as stack:
        servers, models = {}, {}
        for size in ("small", "large"):
            bench.say(f"starting {size}")
            models[size] = synthetic(bench, ITEMS, size)
            deployment = stack.enter_context(deployed(bench, size, models[size], users=USERS, drive=True))
            servers[size] = deployment.gateway()
        reads, events = _rates(bench, servers)
        busy = f"{reads:.0f} reads/s and {reads * EVENTS_PER_READ:.0f} events/s"
        sustained = f"{reads:.0f} reads/s and {events:.2g} events/s"
        flooded = f"{reads:.0f} reads/s and {events * TOO_MANY:.2g} events/s"
        quiet = f"{reads:.0f} reads/s, no events"
        plan = [
            ("small", busy, reads * EVENTS_PER_READ),
            ("small", quiet, 0.0),
            ("large", quiet, 0.0),
            ("small", sustained, events),
            ("large", sustained, events),
            ("large", flooded, events * TOO_MANY),
        ]
        section.ratios += [
            Ratio(f"large / small, p99, {load}", ("large", load), ("small", load), "p99_ms", at_most=1.5)
            for load in (quiet, sustained)
        ]
        section.ratios.append(
            Ratio("large: flooded / sustained, p99", ("large", flooded), ("large", sustained), "p99_ms")
        )
        section.notes.append(
            f"Half of the capacity of small is {reads:.0f} reads/s. The encoder of large alone does "
            f"{events / SUSTAINED_SHARE:.1f} users/s on these cores; {SUSTAINED_SHARE:.0%} of that are the "
            f"events that it is given, and {TOO_MANY} times as many where it is flooded. Reads go on for "
            f"{_SETTLE_S:g} to {_SETTLED_S:g} s before they are measured, until the encoder has followed."
        )
        section.notes.append(
            "Lag: from an event's acknowledgement to the refreshed vector in the store; wanted for small: "
            "p99 within 1 s. Sources: where the vectors of the reads came from; waits: reads that waited for "
            "the encoder."
        )
        for number in range(1, bench.rounds + 1):
            for size, load, per_s in in_turn(plan, number):
                with bench.kept(section):
                    section.measured.append(
                        _measure(bench, servers[size], models[size], number, load, reads, per_s)
                    )
        section.grids.append(_reflected(servers))
    return section


def _rates(bench: Bench, servers: dict[str, Server]) -> tuple[float, float]:
    """Reads per second, half of small's capacity; events per second that large can follow."""
    capacity = measure(bench, servers["small"], 0, in_flight=bench.in_flight, own=True).observed.per_s
    large = servers["large"]
    users = [f"user-{i}" for i in range(USERS)]
    inline = recommend(large.target.port, users, time=int(time.time()))
    encoded = measure(bench, large, 0, in_flight=4, target=inline, load=closed_load(4) + ", encoded inline")
    return capacity / 2, encoded.observed.per_s * SUSTAINED_SHARE


def _measure(
    bench: Bench, server: Server, model: Model, number: int, load: str, reads: float, events: float
) -> Measured:
    _until_followed(server)
    if not events:
        _settle(bench, server, reads)
        return measure(bench, server, number, per_s=reads, load=load, more=_vectors_since(server))
    users = [f"user-{i}" for i in range(USERS)]
    target = record_events(server.target.port, users, model.item_ids(_BODIES))
    recorded = _recorded(server)
    # Stopped when the reads are over, however long their generator takes to start.
    with generators.begun(
        target, bench.seconds + _SPARE_S, per_s=events, seed=number, folder=bench.work
    ) as written:
        end = time.monotonic() + _BEGUN_S
        while _recorded(server) == recorded:
            if time.monotonic() > end:
                raise BenchmarkError(f"{server.name}: no event arrives")
        _settle(bench, server, reads)
        found = measure(bench, server, number, per_s=reads, load=load, more=_vectors_since(server))
        if written.ended:
            raise BenchmarkError(f"{server.name}: events ended before the reads did")
        written.stop()
        if lost := written.result().failed:
            raise BenchmarkError(f"{server.name}: {lost} events were not acknowledged")
    return found


def _recorded(server: Server) -> float:
    """Calls of `RecordEvents` that the gateway has counted."""
    assert server.metrics_port is not None
    return gateway_metrics.read(server.metrics_port).total("riptide_requests_total", method="RecordEvents")


def _until_followed(server: Server) -> None:
    """Returns when the encoder has no user left from before, or does not get there in a minute."""
    port = server.metrics_port
    assert port is not None
    end = time.monotonic() + _FOLLOWED_S
    while gateway_metrics.read(port).total(_BACKLOG) and time.monotonic() < end:
        pass  # a read takes its time


def _settle(bench: Bench, server: Server, reads: float) -> None:
    """Reads until the encoder has no user left at the end of a few seconds, or has had time enough for it."""
    port = server.metrics_port
    assert port is not None
    end = time.monotonic() + _SETTLED_S
    while True:
        generators.open_loop(server.target, reads, _SETTLE_S, seed=0, folder=bench.work)
        if not gateway_metrics.read(port).total(_BACKLOG) or time.monotonic() > end:
            return


def _vectors_since(server: Server) -> Callable[[], Figures]:
    """Lag, backlog and sources of vectors between two calls."""
    port = server.metrics_port
    assert port is not None

    def begin() -> Figures:
        before = gateway_metrics.read(port)

        def end() -> dict[str, float]:
            now = gateway_metrics.read(port)
            since = now - before
            figures = {
                "backlog": now.total(_BACKLOG),
                "refreshes dropped": since.total(_REFRESHES, outcome="dropped"),
            }
            for name, share in (("lag p50 s", 0.5), ("lag p99 s", 0.99)):
                if (lag := since.quantile(_LAG, share)) is not None:
                    figures[name] = lag
            if total := since.total(_VECTORS):
                for source in _SOURCES:
                    figures[f"{source} %"] = 100 * since.total(_VECTORS, source=source) / total
                figures["waits %"] = 100 * since.total(_WAITS) / total
            return figures

        return end

    return begin


def _reflected(servers: dict[str, Server]) -> Grid:
    """Whether the item of an event is off the page that is asked for right after it is acknowledged."""
    rows = []
    for size, server in servers.items():
        there = degraded = changed = 0
        with grpc.insecure_channel(
            f"127.0.0.1:{server.target.port}", options=[("grpc.enable_http_proxy", 0)]
        ) as channel:
            stub = RecommenderStub(channel)
            for i in range(_CHECKED):
                asked = pb.RecommendRequest(user_id=f"user-{i}", limit=10)
                before = [item.item_id for item in stub.Recommend(asked, timeout=_TIMEOUT_S).items]
                event = pb.Event(user_id=f"user-{i}", item_id=before[0], type=pb.EVENT_TYPE_CLICK)
                stub.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=_TIMEOUT_S)
                page = stub.Recommend(asked, timeout=_TIMEOUT_S)
                after = [item.item_id for item in page.items]
                there += before[0] in after
                degraded += page.degraded != 0
                changed += before[1:] != after[:9]
        rows.append([size, *(str(count) for count in (there, degraded, changed))])
    head = ["model", "the event's item is still there", "degraded", "the rest of the page changed, too"]
    return Grid(f"An event and the very next page, {_CHECKED} times", head, rows)
