"""A rollout: a version beside the stable one, seen by more and more users, and then the stable one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from benchmarks.during.load import Load
from benchmarks.errors import BenchmarkError
from benchmarks.processes import run_command
from client.riptide.v1 import rollouts_pb2 as pb
from client.riptide.v1.rollouts_pb2_grpc import RolloutsStub
from features.operator_token import TOKEN_METADATA, operator_token
from features.settings import Settings
from features.token_file import TokenError
from inference.repository import versions_present

_STEPS, _STEP_S = (10.0, 50.0, 100.0), 5.0
"""Shares of the users. A smaller one would wait long for the calls that are wanted of it."""
_LONGEST_S, _PUBLISHED_S = 600.0, 1800.0
_CALL_S = 10.0
_POLL_S = 0.25
_MAY_HAVE_BEGUN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_OVER = (pb.ROLLOUT_PHASE_IDLE, pb.ROLLOUT_PHASE_ROLLED_BACK)


class Refused(BenchmarkError):
    """No rollout has begun: there is none to roll back."""


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Without SIGINT and SIGTERM, for what has limits of its own and must not be left half done."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class RolledOut:
    """By the driver that `make up` has started, as an operator asks for it."""

    promises_no_failure = True
    degrades = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # As the client does: `http_proxy` is for the web.
        channel = grpc.insecure_channel(settings.operator_target, options=[("grpc.enable_http_proxy", 0)])
        self._stub = RolloutsStub(channel)

    def prepare(self) -> None:
        """Sees to it that there is a version to roll out.

        Raises:
            BenchmarkError: there is none, or a rollout goes on already.
        """
        record = self._get()
        if record.phase not in _OVER:
            raise BenchmarkError(f"a rollout goes on already ({self._where(record)}): end it first")
        self._version = self._newer_than(record) or self._published_again(record)

    def happen(self, load: Load) -> list[str]:
        """Rolls it out, and follows it until it is over; what did not go as it should."""
        try:
            ended = self._follow(load, self._start())
        except Refused:
            raise
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self._roll_back("the load test was interrupted" if interrupted else str(error))
            raise
        if ended is None:
            reason = f"it was not over after {_LONGEST_S:.0f} s"
            self._roll_back(reason)
            return [f"the rollout of version {self._version}: {reason}"]
        if ended.phase == pb.ROLLOUT_PHASE_ROLLED_BACK:
            return [f"version {self._version} was rolled back: {ended.reason}"]
        return []

    def _start(self) -> pb.Rollout:
        request = pb.RolloutsStartRequest(version=self._version, steps=_STEPS, step_seconds=_STEP_S)
        try:
            answer: pb.RolloutsStartResponse = self._stub.Start(
                request, timeout=_CALL_S, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            begun = isinstance(error, grpc.Call) and error.code() in _MAY_HAVE_BEGUN
            kind = BenchmarkError if begun else Refused
            raise kind(f"the rollout of version {self._version} was refused: {said(error)}") from error
        return answer.rollout

    def _follow(self, load: Load, record: pb.Rollout) -> pb.Rollout | None:
        """Marks what its history tells until it is over; the record then, or None if that takes too long."""
        marked, deadline = 0.0, time.monotonic() + _LONGEST_S
        began = record.history[-1].time
        while True:
            for entry in record.history:
                if entry.time >= began and entry.time > marked:
                    load.mark(entry.text, entry.time)
                    marked = entry.time
            if record.phase in _OVER:
                return record
            if time.monotonic() > deadline:
                return None
            load.wait(_POLL_S)
            try:
                record = self._get()
            except BenchmarkError as error:  # the driver may be started anew in the middle of it
                print(error, file=sys.stderr)

    @_uninterrupted()
    def _roll_back(self, reason: str) -> None:
        """As far as it has not become the stable version. Whoever interrupts once more waits for it."""
        try:
            record = self._get()
            if record.phase in (*_OVER, pb.ROLLOUT_PHASE_RETIRE):
                return
            request = pb.RollBackRequest(reason=reason, version=self._version)
            self._stub.RollBack(request, timeout=_CALL_S, metadata=self._metadata())
            print(f"version {self._version} is rolled back: {reason}", file=sys.stderr)
        except (BenchmarkError, grpc.RpcError) as error:
            why = said(error) if isinstance(error, grpc.RpcError) else error
            print(
                f"version {self._version} could not be rolled back ({why}): python -m rollout rollback",
                file=sys.stderr,
            )

    def _newer_than(self, record: pb.Rollout) -> int | None:
        """The newest version that may follow the stable one, unless it is the one that was refused last."""
        newest = versions_present(self._settings.model_repository / self._settings.model_name)[-1:]
        return next((each for each in newest if each > record.stable and each != record.candidate), None)

    def _published_again(self, record: pb.Rollout) -> int:
        """A version that is made of the export which the stable one was made of."""
        folder = self._settings.model_repository / self._settings.model_name
        try:
            manifest = json.loads((folder / str(record.stable) / "manifest.json").read_text())
            export = self._settings.state_dir / "exports" / str(manifest["export"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"version {record.stable} has no manifest to read: {error}") from error
        if not export.is_dir():
            raise BenchmarkError(
                f"no version is newer than the stable one, {record.stable}, and {export} is not there to "
                "publish again: make publish"
            )
        print(f"publishing {export} again, as a version to roll out", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "rollout", "publish", "--export", str(export)]
        try:
            done = run_command(command, os.environ, _PUBLISHED_S)
        except BenchmarkError as error:
            raise BenchmarkError(f"version {record.stable} cannot be published again: {error}") from error
        print(done.strip().splitlines()[0], file=sys.stderr, flush=True)
        return versions_present(folder)[-1]

    def _get(self) -> pb.Rollout:
        try:
            answer: pb.RolloutsGetResponse = self._stub.Get(
                pb.RolloutsGetRequest(), timeout=_CALL_S, metadata=self._metadata()
            )
        except grpc.RpcError as error:
            raise BenchmarkError(
                f"the driver of rollouts at {self._settings.operator_target} does not answer: {said(error)}"
            ) from error
        return answer.rollout

    def _metadata(self) -> tuple[tuple[str, str]]:
        try:
            return ((TOKEN_METADATA, operator_token(self._settings.state_dir)),)
        except (TokenError, OSError) as error:
            raise BenchmarkError(f"the operator's token cannot be read: {error}") from error

    @staticmethod
    def _where(record: pb.Rollout) -> str:
        phase = pb.RolloutPhase.Name(record.phase).removeprefix("ROLLOUT_PHASE_").lower()
        return f"version {record.candidate or record.stable}, phase {phase}"


def said(error: grpc.RpcError) -> str:
    """Why a call failed, in one line."""
    if isinstance(error, grpc.Call):
        return " ".join(f"{error.code().name} {error.details() or ''}".split())
    return str(error)
