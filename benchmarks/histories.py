"""How latency grows with the history that the model reads: 50, 200 and 1,000 events, vectors kept and not."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.bench import Bench, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import synthetic
from benchmarks.section import Curve, Ratio, Section
from benchmarks.target import recommend

LENGTHS = (50, 200, 1_000)
_ITEMS = 10_000
_USERS = 200
_LOW = 1


def run(bench: Bench) -> Section:
    """Measures."""
    section = Section(f"History: small model otherwise, {_ITEMS:,} items")
    low = closed_load(_LOW)
    encoded = f"{low}, encoded inline"
    with bench.kept(section), ExitStack() as stack:
        servers = []
        for length in LENGTHS:
            bench.say(f"starting {_name(length)}")
            model = synthetic(bench, _ITEMS, history=length)
            deployment = stack.enter_context(deployed(bench, _name(length), model, users=_USERS))
            servers.append(deployment.gateway())
        for number in range(1, bench.rounds + 1):
            for server in in_turn(servers, number):
                section.measured.append(measure(bench, server, number, in_flight=_LOW))
                users = [f"user-{i}" for i in range(_USERS)]
                target = recommend(server.target.port, users, time=int(time.time()))
                found = measure(bench, server, number, in_flight=_LOW, target=target, load=encoded)
                section.measured.append(found)
    for load, wanted in ((low, 1.3), (encoded, None)):
        for length in LENGTHS[1:]:
            last = length == LENGTHS[-1]
            section.ratios.append(
                Ratio(
                    f"{_name(length)} / {_name(LENGTHS[0])}, p50, {load}",
                    (_name(length), load),
                    (_name(LENGTHS[0]), load),
                    "p50_ms",
                    at_most=wanted if last else None,
                )
            )
        points = [(float(length), _name(length), load) for length in LENGTHS]
        section.curves.append(
            Curve("encoded inline" if load == encoded else "vector kept", "events in a history", points)
        )
    return section


def _name(length: int) -> str:
    return f"{length:,} events"
