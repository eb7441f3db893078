"""What it costs the gateway to be looked at: metrics, and the traces of one call in a hundred."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.bench import Bench, Figures, Server, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.errors import BenchmarkError
from benchmarks.models import small
from benchmarks.processes import free_port, http_get, listens, running, wait
from benchmarks.section import Ratio, Section

UNCOUNTED, COUNTED, TRACED = "gateway, metrics off", "gateway, metrics on", "gateway, metrics and 1 % traced"
TRACE_RATIO = 0.01
_SCRAPE = "scrape, ms"


def run(bench: Bench) -> Section:
    """Measures, in turn, three gateways on one Triton, started anew for each round."""
    model = small(bench)
    section = Section(
        f"Being looked at: {bench.in_flight} calls in flight, small model ({model.items} items)",
        more=[_SCRAPE],
    )
    with bench.kept(section), ExitStack() as stack:
        deployment = stack.enter_context(deployed(bench, "observability", model, drive=True))
        port, log = free_port(), bench.log("trace-sink")
        sink = stack.enter_context(running(log, "benchmarks.observability", "--port", str(port)))
        wait("the sink of traces", log, sink, lambda: listens(port))
        collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        for number in range(1, bench.rounds + 1):
            # Each round has processes of its own: what makes one quicker than another for as long as it
            # lives, say where its memory lies, would pass for what is measured.
            with deployment.for_a_while() as gateways:
                starts: list[Callable[[], Server]] = [
                    # No metrics, so nothing to read failures from: the generator's own count has to do.
                    lambda: replace(gateways.gateway(UNCOUNTED, metrics=False), metrics_port=None),
                    lambda: gateways.gateway(COUNTED),
                    lambda: gateways.gateway(TRACED, trace_ratio=TRACE_RATIO, variables=collector),
                ]
                for server in [start() for start in in_turn(starts, number)]:
                    more = scraped(server)
                    row = measure(bench, server, number, in_flight=bench.in_flight, more=more)
                    section.measured.append(row)
        if b"POST" not in log.read_bytes():
            raise BenchmarkError(f"no trace has come; the gateway's log is beside {log}")
    load = closed_load(bench.in_flight)
    for of, at_most in ((COUNTED, 1.05), (TRACED, 1.08)):
        section.ratios.append(
            Ratio(
                f"{of} / {UNCOUNTED}, CPU per call",
                (of, load),
                (UNCOUNTED, load),
                "gateway",
                at_most=at_most,
            )
        )
    section.notes.append(
        "CPU of the gateway's parent and worker. Where there are metrics they are scraped once in each "
        "measurement, which counts."
    )
    return section


def scraped(server: Server) -> Callable[[], Figures] | None:
    """Scrapes a gateway once while its CPU is counted, as Prometheus would every few seconds."""
    if (port := server.metrics_port) is None:
        return None

    def scrape() -> dict[str, float]:
        began = time.perf_counter()
        http_get(port, "/metrics")
        return {_SCRAPE: (time.perf_counter() - began) * 1000}

    return lambda: scrape


class _Sink(BaseHTTPRequestHandler):
    """Takes what a collector of traces is sent, and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Runs the sink."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observability")
    parser.add_argument("--port", type=int, required=True)
    ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), _Sink).serve_forever()


if __name__ == "__main__":
    main()
