"""The gateway beside servers that people would use instead of it."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.bench import Bench, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import small
from benchmarks.peers.peer import IN_PROCESS, IN_PROCESS_BATCHED, PACKAGED, Peer, compared, disagreements
from benchmarks.section import Ratio, Section
from benchmarks.throughput import GATEWAY

AT_LEAST = 5.0
"""Times the throughput of the best packaged peer."""


def run(bench: Bench) -> Section:
    """Measures, one peer at a time, in turn with the gateway: some are busy even when nobody calls."""
    model = small(bench)
    section = Section(
        f"Peers: {bench.in_flight} calls in flight, the same SavedModel ({model.items} items) and store"
    )
    peers = (IN_PROCESS, IN_PROCESS_BATCHED, *PACKAGED)
    with bench.kept(section), deployed(bench, "peers", model, drive=True) as deployment:
        gateway = deployment.gateway(GATEWAY)
        for peer in peers:
            bench.say(f"starting {peer.name}")
            with bench.kept(section), peer.serving(deployment) as server:
                section.notes.append(compared(server, gateway))
                for number in range(1, bench.rounds + 1):
                    for one in in_turn((replace(gateway, name=beside(peer)), server), number):
                        for own in (False, True):
                            found = measure(bench, one, number, in_flight=bench.in_flight, own=own)
                            section.measured.append(found)
                disagreements(server, gateway, count=4)  # it still answers pages, not errors that nobody sees
    load, own_load = closed_load(bench.in_flight), closed_load(bench.in_flight, own=True)
    best = max(PACKAGED, key=lambda peer: _per_s(section, peer.name, load))
    for peer in peers:
        wanted = {best: AT_LEAST, IN_PROCESS: 2.5}.get(peer)
        section.ratios.append(
            Ratio(
                f"{GATEWAY} / {peer.name}, calls/s",
                (beside(peer), load),
                (peer.name, load),
                at_least=wanted,
            )
        )
        section.ratios.append(
            Ratio(
                f"{GATEWAY} / {peer.name}, p99, own generator",
                (beside(peer), own_load),
                (peer.name, own_load),
                "p99_ms",
                at_most=1.0 if peer is best else None,
            )
        )
    if _per_s(section, best.name, load):
        section.notes.append(f"The best packaged peer is {best.name}.")
    section.notes += [
        "All peers use the vectors that the gateway has kept; what differs is what stands between a caller "
        "and the model. wrk adds calls that it thinks a slow answer kept it from making, so p99 is compared "
        "by our own generator.",
    ]
    return section


def beside(peer: Peer) -> str:
    """The gateway's row while that peer runs."""
    return f"{GATEWAY}, beside {peer.name}"


def _per_s(section: Section, name: str, load: str) -> float:
    found = section.spread(name, load, "per_s")
    return found.median if found else 0.0
