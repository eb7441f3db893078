"""The load test beside what happens to it, with a gateway whose answers the test chooses."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from benchmarks.during.__main__ import run
from benchmarks.during.load import Load
from benchmarks.errors import BenchmarkError
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import add_RecommenderServicer_to_server
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from tests.ports import free_ports
from tests.unit.loadtest.running import BROWSING, ITEM, Gateway, own_port

ROOT = Path(__file__).parents[3]
FALLBACK = pb.RecommendResponse(items=[ITEM], degraded=pb.DEGRADED_REASON_MODEL_UNAVAILABLE)


class Scenario:
    """What happens is up to the test."""

    promises_no_failure = False
    degrades = False

    def __init__(self, gateway: Gateway, *, wrong: Sequence[str] = (), raises: str = "") -> None:
        self._gateway, self._wrong, self._raises = gateway, list(wrong), raises

    def prepare(self) -> None:
        """Nothing."""

    def happen(self, load: Load) -> list[str]:
        calls = len(self._gateway.requests)
        load.mark("it begins")
        assert load.until(lambda: len(self._gateway.requests) > calls + 10, 60)
        if self._raises:
            raise BenchmarkError(self._raises)
        load.mark("it is over")
        return self._wrong


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = grpc.server(ThreadPoolExecutor(32))
    gateway = Gateway()
    add_RecommenderServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield gateway
    server.stop(None).wait()


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the settings; with a user."""
    folder = tmp_path / "store"
    opened = LmdbStore(folder, history_cap=10, map_bytes=1 << 24)
    await opened.append([Event("ann", "i1", EventType.CLICK, 1000)])
    await opened.close()
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{folder}")
    return folder


class Outage(Scenario):
    """Between the marks pages are degraded, and for another second if it `lasts`."""

    degrades = True
    lasts = False

    def happen(self, load: Load) -> list[str]:
        whole, self._gateway.page = self._gateway.page, FALLBACK
        load.mark("it begins")
        load.wait(1.5)
        if not self.lasts:
            self._gateway.page = whole
        load.mark("it is over", math.ceil(time.time()))
        load.wait(1.5)
        self._gateway.page = whole
        return []


@pytest.fixture
def options(gateway: Gateway, store: Path) -> list[str]:
    """For Locust."""
    return ["-H", gateway.address, *BROWSING]


@pytest.fixture
def slo(tmp_path: Path) -> Path:
    """A level that a busy machine keeps, too."""
    level = tmp_path / "level.toml"
    level.write_text("error_rate = 0.9\ndegraded_rate = 0.05\n")
    return level


def left(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid()
    ]


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one process", "several"])
def test_what_happens_stands_in_the_report_and_nothing_is_left(
    gateway: Gateway,
    options: list[str],
    slo: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    processes: tuple[str, ...],
) -> None:
    more = [*options, *processes, *(own_port() if processes else ())]
    status = run(Scenario(gateway), tmp_path, rate=40, seconds=1, slo=slo, more=more)
    said = capfd.readouterr()
    report = json.loads((tmp_path / "report.json").read_text())
    assert [mark["text"] for mark in report["marks"]] == ["it begins", "it is over"], said.out
    assert report["offered"] > 40
    assert report["defects"] == []
    assert (status, report["verdict"]) in {(0, "PASS"), (3, "INVALID")}, said.out
    assert "s into the run: it begins" in said.out, "Locust's own report"
    assert f"kept in {tmp_path}" in said.out
    assert "it is over" in said.err, "and at once"
    assert left(tmp_path) == []


def test_what_did_not_go_as_it_should_fails(
    gateway: Gateway, options: list[str], slo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = run(Scenario(gateway, wrong=["it did not"]), tmp_path, rate=40, seconds=1, slo=slo, more=options)
    assert status in (1, 3)
    assert "FAIL: it did not" in capfd.readouterr().out


def test_where_no_call_is_to_fail_the_service_level_is_not_enough(
    gateway: Gateway, options: list[str], slo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenario = Scenario(gateway)
    gateway.refuses_every = 5
    assert run(scenario, tmp_path, rate=40, seconds=1, slo=slo, more=options) in (0, 3)
    assert "FAIL:" not in capfd.readouterr().out
    scenario.promises_no_failure = True
    assert run(scenario, tmp_path, rate=40, seconds=1, slo=slo, more=options) in (1, 3)
    assert "calls failed, and none was to" in capfd.readouterr().out


def test_of_an_outage_the_pages_before_and_after_it_are_judged(
    gateway: Gateway, options: list[str], slo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scenario = Outage(gateway)
    assert run(scenario, tmp_path, rate=40, seconds=1, slo=slo, more=options) in (0, 3)
    said = capfd.readouterr().out
    assert "FAIL" not in said
    assert "pages before and after it " in said
    assert "MODEL_UNAVAILABLE: from " in said, "the report is Locust's, whole"
    scenario.lasts = True
    assert run(scenario, tmp_path, rate=40, seconds=1, slo=slo, more=options) in (1, 3)
    [failure] = [line for line in capfd.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failure.startswith("FAIL: degraded_rate: of ")


def test_what_cannot_be_done_ends_the_load(
    gateway: Gateway, options: list[str], slo: Path, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match="no such thing"):
        run(Scenario(gateway, raises="no such thing"), tmp_path, rate=40, seconds=1, slo=slo, more=options)
    assert (tmp_path / "report.json").stat().st_size, "it was ended in order"
    assert left(tmp_path) == []


def test_a_load_test_that_does_not_begin_is_an_error(gateway: Gateway, store: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="has ended by itself"):
        run(Scenario(gateway), tmp_path, rate=40, seconds=1, more=["-H", "127.0.0.1:1"])
    assert not gateway.requests


def command(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RIPTIDE_")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.during", *words],
        cwd=ROOT, env=kept | settings, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flood",), "argument scenario: invalid choice: 'flood'"),
        ((), "the following arguments are required: scenario"),
        (("triton", "--rate", "0"), "--rate: must be from 1 to 100000"),
        (("triton", "--seconds", "nan"), "--seconds: must be from 1 to 3600"),
        (("triton", "--marks=mine"), "--marks=mine: --marks is set here"),
        (("triton", "--slo", "mine", "--ho", "other:1"), "--ho: --host is set here"),
        (("triton", "-t5s"), "-t5s: -t is set here"),
        (("triton", "--master"), "--master: --master cannot be used here; --processes can"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], said: str) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr


def test_without_a_deployment_it_says_so(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    done = command("store", RIPTIDE_HTTP_PORT=str(port), RIPTIDE_STATE_DIR=str(tmp_path / "var"))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line == f"no gateway with a model answers at 127.0.0.1:{port}: make up, or wait for it"
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_who_interrupts_it_leaves_no_load_behind(
    gateway: Gateway, options: list[str], slo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    program = f"""
from pathlib import Path
from benchmarks.during.__main__ import interruptible, run

class Waits:
    promises_no_failure = degrades = False
    def happen(self, load):
        load.mark("it waits")
        load.wait(60)

interruptible()
run(Waits(), Path({str(tmp_path)!r}), rate=40, seconds=1, slo=Path({str(slo)!r}), more={options!r})
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        marks = tmp_path / "marks"
        deadline = time.monotonic() + 60
        while not (marks.exists() and marks.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert "s into the run: it waits" in output
    assert left(tmp_path) == []
