"""A rollout under load: which version, what is marked, and what becomes of it when it is interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.during.rollout import RolledOut
from benchmarks.errors import BenchmarkError
from client.riptide.v1 import rollouts_pb2 as pb
from client.riptide.v1.rollouts_pb2_grpc import RolloutsServicer, add_RolloutsServicer_to_server
from features.operator_token import TOKEN_METADATA, operator_token
from features.settings import Settings
from tests.unit.benchmarks.watched_load import WatchedLoad

IDLE, CHECK, CANARY = pb.ROLLOUT_PHASE_IDLE, pb.ROLLOUT_PHASE_CHECK, pb.ROLLOUT_PHASE_CANARY
RETIRE, ROLLED_BACK = pb.ROLLOUT_PHASE_RETIRE, pb.ROLLOUT_PHASE_ROLLED_BACK


class Driver(RolloutsServicer):
    """Goes on by one record with each Get; a refusal is in the way of a Start if there is one."""

    def __init__(self) -> None:
        self.records = [record(IDLE, "version 1 is the stable version")]
        self.started: list[pb.RolloutsStartRequest] = []
        self.rolled_back: list[pb.RollBackRequest] = []
        self.tokens: set[str] = set()
        self.refusal = ""
        self.interrupts = False
        """Whether somebody interrupts this process while it asks for the roll back."""

    def then(self, *records: pb.Rollout) -> None:
        """What comes after a Start."""
        self._next = list(records)

    def Get(self, request: Any, context: Any) -> pb.RolloutsGetResponse:
        self.tokens.add(dict(context.invocation_metadata()).get(TOKEN_METADATA, ""))
        if self.started and len(self.records) > 1:
            self.records.pop(0)
        return pb.RolloutsGetResponse(rollout=self.records[0])

    def Start(self, request: Any, context: Any) -> pb.RolloutsStartResponse:
        if self.refusal:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        self.started.append(request)
        self.records = self._next
        return pb.RolloutsStartResponse(rollout=self.records[0])

    def RollBack(self, request: Any, context: Any) -> pb.RollBackResponse:
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        self.rolled_back.append(request)
        return pb.RollBackResponse(rollout=self.records[0])


def record(phase: pb.RolloutPhase, *history: str, stable: int = 1, candidate: int = 0) -> pb.Rollout:
    """The history is of one entry a second."""
    entries = [pb.HistoryEntry(time=1000.0 + n, text=text) for n, text in enumerate(history)]
    return pb.Rollout(phase=phase, stable=stable, candidate=candidate, history=entries)


BEGUN = record(CHECK, "long ago", "it begins", candidate=2)
HALF = record(CANARY, "long ago", "it begins", "it answers 50 % of the users", candidate=2)
PROMOTED = record(RETIRE, "long ago", "it begins", "it answers 50 % of the users", "stable now", stable=2)
LET_GO = record(
    IDLE, "long ago", "it begins", "it answers 50 % of the users", "stable now", "1 is let go", stable=2
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for version in ("1", "2"):
        (tmp_path / "repository/recommender" / version).mkdir(parents=True)
    (tmp_path / "var").mkdir()
    return Settings(state_dir=tmp_path / "var", model_repository=tmp_path / "repository")


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def scenario(settings: Settings, driver: Driver) -> Iterator[RolledOut]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_RolloutsServicer_to_server(driver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield RolledOut(settings.model_copy(update={"operator_port": port}))
    server.stop(None).wait()


def test_the_newest_version_is_rolled_out_and_each_step_is_marked_once(
    scenario: RolledOut, driver: Driver, settings: Settings
) -> None:
    driver.then(BEGUN, BEGUN, HALF, HALF, PROMOTED, LET_GO)
    scenario.prepare()
    load = WatchedLoad()
    assert scenario.happen(load) == []
    assert load.marks == ["it begins", "it answers 50 % of the users", "stable now", "1 is let go"]
    assert [request.version for request in driver.started] == [2]
    assert driver.tokens == {operator_token(settings.state_dir)}
    assert driver.rolled_back == []


def test_a_version_that_is_rolled_back_is_a_failure_with_its_reason(
    scenario: RolledOut, driver: Driver
) -> None:
    back = record(ROLLED_BACK, "long ago", "it begins", "rolled back to version 1: slow", candidate=2)
    back.reason = "slow"
    driver.then(BEGUN, HALF, back)
    scenario.prepare()
    load = WatchedLoad()
    assert scenario.happen(load) == ["version 2 was rolled back: slow"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "the load test was interrupted"),
        (BenchmarkError("the load test has ended"), "the load test has ended"),
    ],
)
def test_what_is_interrupted_under_way_is_rolled_back(
    scenario: RolledOut,
    driver: Driver,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    reason: str,
) -> None:
    driver.then(BEGUN, HALF)
    scenario.prepare()
    with pytest.raises(type(error)):
        scenario.happen(WatchedLoad(error))
    assert [(request.version, request.reason) for request in driver.rolled_back] == [(2, reason)]
    assert f"version 2 is rolled back: {reason}" in capsys.readouterr().err


def test_who_interrupts_the_roll_back_waits_for_it(
    scenario: RolledOut, driver: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise InterruptedError

    # Not KeyboardInterrupt: that would end the tests.
    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    driver.then(BEGUN, HALF)
    driver.interrupts = True
    scenario.prepare()
    try:
        with pytest.raises(BenchmarkError, match="the load test has ended"):
            scenario.happen(WatchedLoad(BenchmarkError("the load test has ended")))
        assert [signal.getsignal(number) for number in before] == [interrupted] * 2, "only while it asks"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "version 2 is rolled back: the load test has ended" in capsys.readouterr().err


def test_what_has_become_the_stable_version_stays_so(scenario: RolledOut, driver: Driver) -> None:
    driver.then(HALF, PROMOTED)
    scenario.prepare()
    with pytest.raises(KeyboardInterrupt):
        scenario.happen(WatchedLoad(KeyboardInterrupt()))
    assert driver.rolled_back == []


def test_one_that_goes_on_already_is_left_alone(scenario: RolledOut, driver: Driver) -> None:
    driver.records = [HALF]
    with pytest.raises(BenchmarkError, match=r"a rollout goes on already \(version 2, phase canary\)"):
        scenario.prepare()
    assert driver.started == []


def test_a_version_older_than_the_stable_one_or_refused_before_is_not_taken(
    scenario: RolledOut, driver: Driver
) -> None:
    for found in (record(IDLE, "", stable=2), record(ROLLED_BACK, "", stable=1, candidate=2)):
        driver.records = [found]
        with pytest.raises(BenchmarkError, match=f"version {found.stable} has no manifest to read"):
            scenario.prepare()


def test_where_the_export_has_gone_it_says_what_to_do(
    scenario: RolledOut, driver: Driver, settings: Settings
) -> None:
    driver.records = [record(IDLE, "", stable=2)]
    manifest = settings.model_repository / "recommender/2/manifest.json"
    manifest.write_text('{"export": "films"}')
    with pytest.raises(BenchmarkError, match=r"films is not there to publish again: make publish"):
        scenario.prepare()


def test_a_start_that_is_refused_is_a_sentence(scenario: RolledOut, driver: Driver) -> None:
    scenario.prepare()
    driver.refusal = "version 2 is under way"
    with pytest.raises(
        BenchmarkError, match="the rollout of version 2 was refused: FAILED_PRECONDITION version 2 is under"
    ):
        scenario.happen(WatchedLoad())
    assert driver.rolled_back == []


def test_where_no_driver_answers_it_says_where_it_looked(settings: Settings) -> None:
    nobody = settings.model_copy(update={"operator_port": 1})
    with pytest.raises(
        BenchmarkError, match=r"the driver of rollouts at 127\.0\.0\.1:1 does not answer: UNAVAILABLE"
    ):
        RolledOut(nobody).prepare()
