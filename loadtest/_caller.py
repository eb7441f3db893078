"""What all users of a load test have in common: when their next call is due, and what is measured of it.

In a closed loop a user waits for an answer, pauses, and calls again. In an open loop (`--rate-per-user`) it
calls as a Poisson process does, whatever becomes of the calls before: users who do not know of each other.
Either way a page's latency counts from the moment that it was due: one that the generator asks for late has
waited all the same (to count from the late call is what G. Tene calls coordinated omission).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import gevent.event  # type: ignore[import-untyped]
import gevent.pool  # type: ignore[import-untyped]
import grpc
from locust import User, task
from locust.env import Environment

from client.riptide.v1 import recommender_pb2 as pb
from client.tables import degraded_name
from features.settings import load_settings
from loadtest._connections import connect
from loadtest._tally import FAILED, FULL, METER, RECOMMEND, Row
from loadtest._visitors import Visitors, of_data, of_store

SETTINGS = load_settings()
_DEADLINE_S = 5.0


class Caller(User):
    """A user. What one does when it is its turn is `visit`."""

    abstract = True
    pause_share = 1.0
    """How long its pauses are, in `--think-s`."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options: Any = environment.parsed_options
        self.options = options
        self.stub = next(connect(address_of(environment)))
        self.visitors = visitors()
        self._visits = gevent.pool.Group()
        self._due = time.perf_counter() + self._first_pause_s()
        self.begin()

    def begin(self) -> None:
        """Before the first visit."""

    def visit(self, due: float) -> None:
        """Asks for a page that was due then, by `time.perf_counter`, and does what users do with it.

        Raises:
            NotImplementedError: of a kind of user that does nothing, and would go round without a call.
                Locust's metaclass leaves no room for `abc`.
        """
        raise NotImplementedError

    def wait_time(self) -> float:
        """Seconds until the next visit is due."""
        return max(0.0, self._due - time.perf_counter())

    def on_start(self) -> None:
        """Not before the first visit is due."""
        gevent.sleep(self.wait_time())

    def on_stop(self) -> None:
        """What it has begun ends with it."""
        self._visits.kill()

    @task
    def next_visit(self) -> None:
        """The visit that is due; in an open loop it is not waited for."""
        due, rate = self._due, float(self.options.rate_per_user)
        if rate > 0:
            self._visits.spawn(self._visit_unwatched, due)
            self._due = due + random.expovariate(rate)
        else:
            self.visit(due)
            self._due = time.perf_counter() + self._pause_s()

    def _visit_unwatched(self, due: float) -> None:
        """Locust does not see what is raised in a greenlet that is not its own."""
        try:
            self.visit(due)
        except Exception as error:
            told = self.environment.events.user_error
            told.fire(user_instance=self, exception=error, tb=error.__traceback__)

    def look(self) -> None:
        """A look at a page, before it is clicked on: half a pause."""
        gevent.sleep(self._pause_s() / 2)

    def page(self, due: float, request: pb.RecommendRequest) -> pb.RecommendResponse | None:
        """The page that was due; None if there is none."""
        answer: pb.RecommendResponse | None = self.call(RECOMMEND, self.stub.Recommend, request, due)
        return answer

    def call(self, name: str, method: Callable[..., Any], request: Any, due: float | None = None) -> Any:
        """The answer, or None. It is counted, with the time from when it was due, or else from now."""
        in_open_loop = due is not None and self.options.rate_per_user > 0
        call = METER.leaves(name, time.perf_counter() if due is None else due, is_offered=in_open_loop)
        answer: Any = None
        failure: CallFailed | None = None
        try:
            answer = method(request, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            failure = CallFailed(error.code().name)
        except gevent.GreenletExit:
            METER.is_given_up(call)
            raise
        if isinstance(answer, pb.RecommendResponse) and not answer.items:
            answer, failure = None, CallFailed("EMPTY_PAGE")
        row = row_of(name, answer, failure)
        took_s = METER.ends(call, row)
        # Rows of their own in Locust's tables: how soon a connection is refused says nothing about answers.
        shown = f"{name}, failed" if failure else f"{name}, degraded: {row.outcome}" if row.outcome else name
        self.environment.events.request.fire(
            request_type="grpc",
            name=shown,
            response_time=took_s * 1000,
            response_length=answer.ByteSize() if answer is not None else 0,
            exception=failure,
            context={},
        )
        return answer

    def _first_pause_s(self) -> float:
        """Not all at once; and in an open loop no more in the first seconds than in any others."""
        rate = float(self.options.rate_per_user)
        return random.expovariate(rate) if rate > 0 else random.random() * self._pause_s()

    def _pause_s(self) -> float:
        """Of this length on average; exponential, so that users who began together do not stay so."""
        mean = self.options.think_s * self.pause_share
        return random.expovariate(1 / mean) if mean > 0 else 0.0


class CallFailed(Exception):
    """A call without an answer, by its status: two of one kind count as one, whatever their sentences."""


def row_of(method: str, answer: Any, failure: CallFailed | None) -> Row:
    """What a call counts as."""
    if failure is not None:
        return Row(method, "", "", f"{FAILED}{failure}")
    if not isinstance(answer, pb.RecommendResponse):
        return Row(method, "", "", FULL)
    outcome = degraded_name(answer.degraded) if answer.degraded else FULL
    return Row(method, f"{answer.model.name} {answer.model.version}", answer.cohort, outcome)


def address_of(environment: Environment) -> str:
    """`host:port` of the gateway: -H, else the settings."""
    return (environment.host or SETTINGS.gateway_target).removeprefix("http://").rstrip("/")


_VISITORS = gevent.event.AsyncResult()


def use_users_of(data: str) -> None:
    """Takes user ids from this folder of prepared data, or from the store if it is empty: from this machine,
    whatever the master on another has.

    Raises:
        ValueError: there are none; the sentence says where.
    """
    if not data:
        try:
            _VISITORS.set(of_store())
        except ValueError as error:
            raise ValueError(f"users: {error}; without the store here, --data names prepared data") from error
        return
    try:
        _VISITORS.set(of_data(Path(data)))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"--data: {data} has no events.parquet with a column user_id and users in it"
        ) from error


def visitors() -> Visitors:
    """The user ids of this process. A master may have a worker begin that still asks the store for them."""
    known: Visitors = _VISITORS.get()
    return known
