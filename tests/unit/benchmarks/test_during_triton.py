"""Triton is killed under load: which process that is, and when it counts as back."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.during import triton
from benchmarks.during.triton import TritonKilled, running_triton
from benchmarks.errors import BenchmarkError
from features.settings import Settings
from inference.server import pid_file
from tests.ports import free_ports
from tests.unit.benchmarks.watched_load import WatchedLoad


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "var", model_repository=tmp_path / "repository", http_port=free_ports(1)[0]
    )


@pytest.fixture
def server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """What looks like the tritonserver of these settings from outside."""
    with started(settings, "/opt/tritonserver/bin/tritonserver") as process:
        yield process
        process.kill()


def started(settings: Settings, name: str, named_by: Settings | None = None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [
            *(name, "-c", "read forever"),
            f"--model-repository={settings.model_repository.resolve()}",
            f"--grpc-port={settings.triton_grpc_port}",
        ],
        executable="/bin/sh",
        stdin=subprocess.PIPE,
    )
    path = pid_file(named_by or settings)
    path.parent.mkdir(parents=True)
    path.write_text(f"{process.pid}\n")
    return process


class DatedLoad(WatchedLoad):
    """Keeps the times of the marks, too."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def mark(self, text: str, at: float | None = None) -> None:
        super().mark(text, at)
        assert at is not None, "the scenario says when"
        self.times.append(at)


NO_ANSWER = ()


class Workers:
    """Which workers of a gateway call Triton (True): all until `victim` has ended, and then those of `then`,
    with each answer the next, the last for good.
    """

    def __init__(self, victim: subprocess.Popen[bytes], *then: tuple[bool, ...]) -> None:
        self._victim, self._then = victim, list(then)
        self._turn = itertools.count()

    @property
    def left(self) -> int:
        """How much of `then` is still to come; the last is for good."""
        return len(self._then)

    def readyz(self) -> str:
        """One of them answers, in turn."""
        now = self._now()
        return "SERVING" if now[next(self._turn) % len(now)] else "NOT_SERVING"

    def ready(self) -> int | None:
        """That of /metrics, the lowest; None: there is no answer."""
        now = self._now()
        return min(now) if now else None

    def _now(self) -> tuple[bool, ...]:
        if self._victim.poll() is None:
            return (True, True)
        return self._then.pop(0) if len(self._then) > 1 else self._then[0]


@pytest.fixture
def told(settings: Settings) -> Iterator[list[Workers]]:
    """A gateway's HTTP server; whoever puts workers into the list decides what it says."""
    told: list[Workers] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/readyz":
                body = json.dumps({"gateway": "SERVING", "model": told[0].readyz()})
            else:
                ready = told[0].ready()
                body = f"riptide_model_ready {float(ready)}\n" if ready is not None else ""
            self.send_response(200 if body else 503)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", settings.http_port), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield told
        http.shutdown()
        thread.join()


def test_it_is_killed_and_back_once_the_gateway_has_missed_it_and_calls_it_again(
    settings: Settings, server: subprocess.Popen[bytes], told: list[Workers]
) -> None:
    told.append(Workers(server, *[(False, False)] * 3, (True, True)))
    load, began = DatedLoad(), time.time()
    scenario = TritonKilled(settings)
    scenario.prepare()
    assert server.poll() is None
    assert scenario.happen(load) == []
    assert server.wait(10) == -9
    assert load.marks == ["Triton is killed", "Triton is back"]
    killed, back = load.times
    assert began <= killed < back < time.time() + 1
    assert back == int(back), "figures are cut at whole seconds"


def test_it_is_back_when_the_last_worker_calls_it(
    settings: Settings, server: subprocess.Popen[bytes], told: list[Workers]
) -> None:
    workers = Workers(server, (True, True), (True, False), (False, False), *[(False, True)] * 5, (True, True))
    told.append(workers)
    load = WatchedLoad()
    assert TritonKilled(settings).happen(load) == []
    assert load.marks == ["Triton is killed", "Triton is back"]
    assert workers.left == 1, "not while one worker calls it and another does not"


def test_one_that_does_not_come_back_is_a_failure(
    settings: Settings, server: subprocess.Popen[bytes], told: list[Workers]
) -> None:
    told.append(Workers(server, (False, False)))
    load = WatchedLoad()
    patient = settings.model_copy(update={"triton_ready_s": 0.5})
    assert TritonKilled(patient).happen(load) == ["Triton is not back 0 s after the gateway missed it"]
    assert load.marks == ["Triton is killed"]


@pytest.mark.parametrize("says", [NO_ANSWER, (True, True)], ids=["does not answer", "misses nothing"])
def test_a_gateway_that_does_not_say_that_it_noticed_is_a_failure(
    settings: Settings,
    server: subprocess.Popen[bytes],
    told: list[Workers],
    monkeypatch: pytest.MonkeyPatch,
    says: tuple[bool, ...],
) -> None:
    monkeypatch.setattr(triton, "_NOTICED_S", 0.5)
    told.append(Workers(server, says))
    [sentence] = TritonKilled(settings).happen(WatchedLoad())
    assert sentence.startswith("the gateway has not noticed after ")


def test_a_triton_elsewhere_is_left_alone(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"triton_address": "gpu:8001"})
    with pytest.raises(BenchmarkError, match=r"RIPTIDE_TRITON_ADDRESS is gpu:8001: .* cannot be killed"):
        TritonKilled(elsewhere).prepare()


def test_where_none_runs_it_says_so(settings: Settings) -> None:
    with pytest.raises(BenchmarkError, match=r"no Triton runs here by these settings .* make up"):
        TritonKilled(settings).prepare()
    path = pid_file(settings)
    path.parent.mkdir(parents=True)
    path.write_text("")
    with pytest.raises(BenchmarkError, match="no Triton runs here"):
        TritonKilled(settings).prepare()


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("/usr/bin/editor", {}),
        ("/opt/tritonserver/bin/tritonserver", {"model_repository": Path("/srv/another")}),
        ("/opt/tritonserver/bin/tritonserver", {"triton_grpc_port": 1}),
    ],
    ids=["another program", "another repository", "another port"],
)
def test_a_process_that_has_got_the_number_of_a_triton_is_not_killed(
    settings: Settings, name: str, differs: dict[str, object]
) -> None:
    with started(settings.model_copy(update=differs), name, named_by=settings) as process:
        try:
            with pytest.raises(BenchmarkError, match="is not the tritonserver of these settings"):
                TritonKilled(settings).happen(WatchedLoad())
            assert process.poll() is None
        finally:
            process.kill()


def test_the_process_of_the_test_itself_is_none(settings: Settings) -> None:
    path = pid_file(settings)
    path.parent.mkdir(parents=True)
    path.write_text(str(os.getpid()))
    with pytest.raises(BenchmarkError, match="is not the tritonserver"):
        running_triton(settings)
