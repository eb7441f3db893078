"""Which generator puts the load on."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from benchmarks import generators, wrk
from benchmarks.errors import BenchmarkError
from benchmarks.observed import Observed
from benchmarks.processes import free_port
from benchmarks.target import NOTHING, nothing, recommend_over_http

IN_C = Observed("in C", 1000, 0, 1.0, 1.0, 1.0, 1.0, 0.1)
OWN = dataclasses.replace(IN_C, generator="own")
IN_FLIGHT = generators.OWN_BELOW


@pytest.fixture
def in_c(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both generators in C, and ours, of which only the answers count here."""
    in_c = SimpleNamespace(observed=IN_C, there=True)
    for module in (generators.h2load, generators.wrk):
        monkeypatch.setattr(module, "available", lambda: in_c.there)
        monkeypatch.setattr(module, "run", lambda *_: in_c.observed)

    @contextmanager
    def begun(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(result=lambda: OWN)

    monkeypatch.setattr(generators, "begun", begun)
    return in_c


def test_the_one_in_c_is_taken_if_it_is_there(in_c: SimpleNamespace) -> None:
    for target in (nothing(1), recommend_over_http(1, ["u"])):
        in_c.there = True
        assert generators.closed(target, IN_FLIGHT, 1.0) is IN_C
        in_c.there = False
        assert generators.closed(target, IN_FLIGHT, 1.0) is OWN


@pytest.mark.parametrize("in_flight", [1, 4, 63])
def test_ours_is_taken_for_few_calls_as_the_one_in_c_would_name_few_users(
    in_flight: int, in_c: SimpleNamespace
) -> None:
    assert generators.closed(nothing(1), in_flight, 1.0) is OWN


def test_temporary_files_go_below_the_folder_that_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[str] = []
    temporary = tempfile.TemporaryDirectory

    def noted(dir: Path | None = None) -> object:
        made.append(str(dir))
        return temporary(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", noted)
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "not here")
    )
    with pytest.raises(BenchmarkError, match="not here"):
        wrk.run(recommend_over_http(1, ["u"]), 4, 0.1, tmp_path)
    with generators.begun(nothing(free_port()), 0.1, in_flight=1, folder=tmp_path):
        assert [[path.name for path in folder.iterdir()] for folder in tmp_path.iterdir()] == [["bodies"]]
    assert made == [str(tmp_path)] * 2
    assert not [*tmp_path.iterdir()]


def test_ours_stops_when_it_is_told_to_and_tells_what_it_saw() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    called = threading.Event()
    service, method = NOTHING.strip("/").split("/")

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        called.set()
        return b""

    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with generators.begun(nothing(port), 600.0, per_s=50.0) as load:
        assert called.wait(60)
        assert not load.ended
        load.stop()
        found = load.result()
        assert load.ended
    server.stop(0).wait()
    assert found.answered > 0
    assert found.seconds < 300


def test_ours_is_taken_if_it_is_asked_for(in_c: SimpleNamespace) -> None:
    assert generators.closed(nothing(1), IN_FLIGHT, 1.0, own=True) is OWN


@pytest.mark.parametrize(("answered", "taken"), [(0, OWN), (319, OWN), (320, None)])
def test_too_few_answers_for_a_rate_are_measured_by_ours_which_waits_for_all(
    answered: int, taken: Observed | None, in_c: SimpleNamespace
) -> None:
    in_c.observed = dataclasses.replace(IN_C, answered=answered)
    assert generators.closed(nothing(1), IN_FLIGHT, 1.0) is (taken or in_c.observed)
