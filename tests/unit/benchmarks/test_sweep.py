"""That each setting is measured beside what is published, and what a failure costs. Nothing is started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import sweep
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.section import Measured
from benchmarks.sweep import DEFAULT, VARIANTS
from features.settings import Settings

BROKEN = VARIANTS[2].name


@pytest.mark.parametrize("broken", [None, "start", "measure"])
def test_what_is_published_is_measured_beside_each_variant_and_a_failure_costs_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str | None
) -> None:
    moments: list[tuple[str, str]] = []

    def started(bench: object, variant: sweep.Variant, *_: object) -> SimpleNamespace:
        if broken == "start" and variant.name == BROKEN:
            raise BenchmarkError("it does not start")
        return SimpleNamespace(name=variant.name)

    def measure(bench: object, server: SimpleNamespace, number: int, *, in_flight: int) -> Measured:
        load = f"{in_flight} in flight"
        if broken == "measure" and server.name == BROKEN and in_flight == 64:
            raise BenchmarkError("it answered nothing")
        moments.append((server.name, load))
        observed = Observed("own, 1", 10, 0, 1.0, 1.0, float(len(moments)), 1.0, 0.1)
        return Measured(number, server.name, load, observed)

    monkeypatch.setattr(sweep, "small", lambda bench: SimpleNamespace(items=10))
    monkeypatch.setattr(sweep, "_started", started)
    monkeypatch.setattr(sweep, "measure", measure)
    section = sweep.run(Bench(Settings(), tmp_path, tmp_path, rounds=2, seconds=1.0, in_flight=64))
    whole = 2 * len(VARIANTS) - (2 if broken else 0)
    for load in ("1 in flight", "4 in flight", "64 in flight"):
        # Next to each other: one was measured right after the other.
        of_load = {m.round: [] for m in section.measured}
        for m in section.measured:
            if m.load == load:
                of_load[m.round].append((m.server, m.observed.p50_ms))
        pairs = [pair for pair in of_load.values() if len(pair) == 2]
        if broken == "measure" and load != "64 in flight":
            assert len(pairs) == 2 * len(VARIANTS)  # what had been measured stays
        else:
            assert len(pairs) == whole
        for (first, before), (second, after) in pairs:
            assert DEFAULT.name in (first, second)
            assert after == before + 1
        published_first = sum(pair[0][0] == DEFAULT.name for pair in pairs)
        assert 0 < published_first < len(pairs)
    assert len(section.failures) == (2 if broken else 0)
