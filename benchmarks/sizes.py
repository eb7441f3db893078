"""How latency and throughput grow with the model: small, base and large, encoded inline and with user state.

A page of a named moment (`time`) takes no kept vector, so that its user is encoded within the call; by a
gateway that lets no vector lag, as one that does leaves out of its batches whoever would hold them up. By our
own generator throughout: a run of h2load would end before the first batch of `large` does.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.bench import Bench, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import synthetic
from benchmarks.section import Ratio, Section
from benchmarks.target import recommend

SIZES = ("small", "base", "large")
ITEMS = 10_000
USERS = 200
STATE, INLINE = "user state", "encoded inline"


def run(bench: Bench) -> Section:
    """Measures."""
    section = Section(f"Model: small, base and large, {ITEMS:,} items")
    loads = {
        load: (f"{load} in flight, {STATE}", f"{load} in flight, {INLINE}") for load in (1, bench.in_flight)
    }
    with bench.kept(section), ExitStack() as stack:
        servers = []
        for size in SIZES:
            bench.say(f"starting {size}")
            deployment = stack.enter_context(
                deployed(bench, size, synthetic(bench, ITEMS, size), users=USERS)
            )
            strict = deployment.gateway(f"{size}, no lag", freshness="strict")
            servers.append((deployment.gateway(), replace(strict, name=size)))
        users = [f"user-{i}" for i in range(USERS)]
        for number in range(1, bench.rounds + 1):
            for in_flight, (state, inline) in loads.items():
                for server, strict in in_turn(servers, number):
                    section.measured.append(
                        measure(bench, server, number, in_flight=in_flight, own=True, load=state)
                    )
                    target = recommend(strict.target.port, users, time=int(time.time()))
                    section.measured.append(
                        measure(
                            bench, strict, number, in_flight=in_flight, own=True, target=target, load=inline
                        )
                    )
    for state, inline in loads.values():
        for size in SIZES:
            wanted = 10.0 if size == "large" and state.startswith(f"{bench.in_flight} ") else None
            section.ratios.append(
                Ratio(f"{size}: {state} / {inline}, calls/s", (size, state), (size, inline), at_least=wanted)
            )
    for state, _ in loads.values():
        for size in SIZES[1:]:
            section.ratios.append(
                Ratio(f"{size} / small, p50, {state}", (size, state), ("small", state), "p50_ms")
            )
    return section
