"""Throughput at 64 calls in flight: the gateway, the floors under it, and a gateway without batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.ask import over_grpc
from benchmarks.bench import Bench, Server, closed_load, in_turn, measure
from benchmarks.deployment import Deployment, deployed
from benchmarks.models import small
from benchmarks.peers.peer import IN_PROCESS, compared
from benchmarks.processes import free_port, listens, running, wait
from benchmarks.section import Ratio, Section
from benchmarks.target import NOTHING, nothing, write_bodies
from benchmarks.triton_floor import batches, check_raw, raw_model_infer

EMPTY, GATEWAY, ONE_BY_ONE = "empty grpc.aio call", "gateway + Triton", "gateway, one ModelInfer per request"
JOINED = "empty call, joined for Triton"
TWO_WORKERS = ", 2 workers"


@contextmanager
def empty_call(bench: Bench, workers: int = 1) -> Iterator[Server]:
    """The floor, serving."""
    name = EMPTY + (TWO_WORKERS if workers == 2 else "")
    port = free_port()
    log = bench.log(name.replace(" ", "-"))
    with running(log, "benchmarks.floor", "--port", str(port), "--workers", str(workers)) as process:
        wait(name, log, process, lambda: listens(port))
        yield Server(name, nothing(port), {"server": process})


@contextmanager
def joined_call(bench: Bench, deployment: Deployment, gateway: Server) -> Iterator[Server]:
    """The floor whose calls are joined for Triton, serving; its answer is a page of the gateway's.

    Raises:
        BenchmarkError: it does not start.
        grpc.RpcError: the gateway does not answer.
    """
    port, log, bodies = free_port(), bench.log("joined-call"), bench.work / "joined.bodies"
    target = replace(gateway.target, port=port, path=NOTHING)
    page = over_grpc(gateway.target, target.bodies[0])
    write_bodies(bodies, [*batches(deployment, deployment.settings.max_batch), page])
    words = ["--port", str(port), "--triton", str(deployment.settings.triton_grpc_port)]
    with running(log, "benchmarks.floor", *words, "--bodies", str(bodies)) as process:
        wait(JOINED, log, process, lambda: listens(port))
        yield Server(JOINED, target, {"server": process, "Triton": deployment.triton})


def run(bench: Bench) -> Section:
    """Measures, with one worker and with two."""
    model = small(bench)
    section = Section(
        f"Throughput: {bench.in_flight} calls in flight, small model ({model.items} items), vectors kept"
    )
    with bench.kept(section), ExitStack() as stack:
        deployment: Deployment = stack.enter_context(deployed(bench, "throughput", model, drive=True))
        gateway = deployment.gateway(GATEWAY)
        servers = [
            stack.enter_context(empty_call(bench)),
            gateway,
            deployment.gateway(ONE_BY_ONE, coalesce=False),
            raw_model_infer(deployment),
            stack.enter_context(IN_PROCESS.serving(deployment)),
            stack.enter_context(empty_call(bench, 2)),
            deployment.gateway(GATEWAY + TWO_WORKERS, workers=2),
            stack.enter_context(joined_call(bench, deployment, gateway)),
        ]
        own = [servers[0], servers[1]]
        section.notes.append(compared(servers[4], servers[1]))
        check_raw(deployment, servers[3])
        for number in range(1, bench.rounds + 1):
            for server in in_turn(servers, number):
                section.measured.append(measure(bench, server, number, in_flight=bench.in_flight))
            for server in in_turn(own, number):
                section.measured.append(measure(bench, server, number, in_flight=bench.in_flight, own=True))
    load, own_load = closed_load(bench.in_flight), closed_load(bench.in_flight, own=True)

    def ratio(of: str, by: str, at_least: float | None = None, at: str = load) -> Ratio:
        return Ratio(f"{of} / {by}, calls/s, {at}", (of, at), (by, at), at_least=at_least)

    section.ratios += [
        ratio(GATEWAY, EMPTY, 0.70),
        ratio(GATEWAY + TWO_WORKERS, EMPTY + TWO_WORKERS, 0.70),
        ratio(GATEWAY, EMPTY, at=own_load),
        ratio(JOINED, EMPTY),
        ratio(GATEWAY, JOINED),
        ratio(GATEWAY, ONE_BY_ONE),
        ratio(GATEWAY, IN_PROCESS.name, 2.5),
        ratio(GATEWAY + TWO_WORKERS, GATEWAY),
    ]
    section.notes.append(
        "h2load varies between four users; our own generator between all, and it looks at answers. "
        f"{JOINED}: no user is read and no page made; what is left to a gateway that joins calls. "
        "CPU of the gateway and of Triton is counted with all processes that each has started."
    )
    return section
