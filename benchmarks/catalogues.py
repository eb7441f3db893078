"""How latency grows with the catalogue: 10^4, 10^5 and 10^6 items, small model, vectors kept."""

from __future__ import annotations

import json
from contextlib import ExitStack

from benchmarks.bench import Bench, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import Model, synthetic
from benchmarks.section import Curve, Grid, Ratio, Section

SIZES = (10_000, 100_000, 1_000_000)
_LOW = 1


def run(bench: Bench) -> Section:
    """Measures."""
    section = Section("Catalogue: small model, vectors kept")
    models = [(_name(items), synthetic(bench, items)) for items in SIZES]
    with bench.kept(section), ExitStack() as stack:
        servers = []
        for name, model in models:
            bench.say(f"starting {name}")
            servers.append(stack.enter_context(deployed(bench, name, model)).gateway())
        for number in range(1, bench.rounds + 1):
            for in_flight in (_LOW, bench.in_flight):
                for server in in_turn(servers, number):
                    section.measured.append(measure(bench, server, number, in_flight=in_flight))
    low, high = closed_load(_LOW), closed_load(bench.in_flight)
    first, *others = SIZES
    for items in others:
        wanted = 3.0 if items == 1_000_000 else None
        label = f"{_name(items)} / {_name(first)}, p50, {low}"
        section.ratios.append(
            Ratio(label, (_name(items), low), (_name(first), low), "p50_ms", at_most=wanted)
        )
        section.ratios.append(
            Ratio(
                f"{_name(items)} / {_name(first)}, calls/s, {high}",
                (_name(items), high),
                (_name(first), high),
            )
        )
    for load in (low, high):
        points = [(float(items), _name(items), load) for items in SIZES]
        section.curves.append(Curve(load, "items in the catalogue", points))
    section.grids.append(
        Grid("Search, as the manifest states it", ["catalogue", "index"], [_index(*each) for each in models])
    )
    return section


def _name(items: int) -> str:
    return f"{items:,} items"


def _index(name: str, model: Model) -> list[str]:
    manifest = model.repository / "recommender" / "1" / "manifest.json"
    index = json.loads(manifest.read_text(encoding="utf-8")).get("index")
    if not index:
        return [name, "exact"]
    return [name, ", ".join(f"{key} {value}" for key, value in index.items())]
