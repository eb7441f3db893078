"""Few calls in flight, where latency is what counts: 1 and 4, and where the time goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import triton_statistics
from benchmarks.bench import Bench, Figures, closed_load, in_turn, measure
from benchmarks.breakdown import at_batch, breakdown
from benchmarks.deployment import Deployment, deployed
from benchmarks.models import small
from benchmarks.peers.peer import IN_PROCESS, compared
from benchmarks.processes import run_in_triton
from benchmarks.section import Grid, Ratio, Section, rounded, spread
from benchmarks.throughput import EMPTY, GATEWAY, empty_call
from benchmarks.triton_floor import check_raw, raw_model_infer

IN_FLIGHT = (1, 4)
_PARTS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


def run(bench: Bench) -> Section:
    """Measures."""
    model = small(bench)
    section = Section(f"Few calls in flight, small model ({model.items} items), vectors kept")
    floor: dict[str, float] = {}
    with bench.kept(section), ExitStack() as stack:
        deployment = stack.enter_context(deployed(bench, "few-calls", model, drive=True))
        floor = in_process_ms(bench, deployment)
        gateway = deployment.gateway(GATEWAY)
        servers = [
            stack.enter_context(empty_call(bench)),
            gateway,
            stack.enter_context(IN_PROCESS.serving(deployment)),
            raw_model_infer(deployment),
        ]
        section.notes.append(compared(servers[2], gateway))
        check_raw(deployment, servers[3])
        for number in range(1, bench.rounds + 1):
            for in_flight in IN_FLIGHT:
                for server in in_turn(servers, number):
                    more = _triton_since(deployment) if server is gateway else None
                    section.measured.append(measure(bench, server, number, in_flight=in_flight, more=more))
    for in_flight in IN_FLIGHT:
        load = closed_load(in_flight)
        section.ratios += [
            Ratio(
                f"{GATEWAY} / {IN_PROCESS.name}, p50, {load}",
                (GATEWAY, load),
                (IN_PROCESS.name, load),
                "p50_ms",
                at_most=1.5,
            ),
            Ratio(f"{GATEWAY} / {EMPTY}, p50, {load}", (GATEWAY, load), (EMPTY, load), "p50_ms"),
        ]
        section.grids.append(_breakdown(section, in_flight, floor))
    section.grids.append(
        Grid(
            "SavedModel called in process, in Triton's environment, vectors fresh",
            ["users in a batch", *floor],
            [["ms", *(rounded(ms) for ms in floor.values())]],
        )
    )
    return section


def in_process_ms(bench: Bench, deployment: Deployment, *flags: str) -> dict[str, float]:
    """Milliseconds of a call of the SavedModel in process, by batch size, for users with a fresh vector.

    Raises:
        BenchmarkError: it does not run.
    """
    settings = deployment.settings
    version = settings.model_repository / settings.model_name / "1"
    said = run_in_triton(settings, "benchmarks.saved_model_floor", str(version.absolute()), *flags)
    return {str(size): float(ms) for size, ms in json.loads(said)["fresh"].items()}


def _triton_since(deployment: Deployment) -> Callable[[], Figures]:
    """Triton's statistics of what comes between two calls, as figures."""
    port, name = deployment.settings.triton_http_port, deployment.settings.model_name

    def begin() -> Figures:
        before = triton_statistics.read(port, name)

        def end() -> dict[str, float]:
            since = triton_statistics.read(port, name) - before
            figures = {"requests": since.requests, "executions": since.executions, "rows": since.rows}
            return {**figures, **since.seconds}

        return end

    return begin


def _breakdown(section: Section, in_flight: int, floor: dict[str, float]) -> Grid:
    parts: dict[str, list[float]] = {}
    for one in section.of(GATEWAY, closed_load(in_flight)):
        found = one.more
        triton = triton_statistics.Statistics(
            int(found["requests"]),
            int(found["executions"]),
            int(found["rows"]),
            {part: found[part] for part in _PARTS},
        )
        rows = triton.rows / triton.executions
        assert one.observed.mean_ms is not None
        of_call = breakdown(one.observed.mean_ms, one.observed.stages_ms, triton, at_batch(floor, rows))
        for name, ms in {**of_call, "all": one.observed.mean_ms, "(users in a batch)": rows}.items():
            parts.setdefault(name, []).append(ms)
    return Grid(
        f"{in_flight} in flight: where the milliseconds of a mean call go",
        ["part", "ms"],
        [[name, str(spread(values))] for name, values in parts.items()],
    )
