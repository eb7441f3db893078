"""Users who look at their page, and sometimes click on it.

    locust -f loadtest/ --headless -u 50 -t 30s

Each user calls, waits for the answer, and calls again (a closed loop; `--think-s` puts a pause between). So
the throughput is what the gateway and this load generator reach together on this machine, and the latency is
what callers see at that number of users.

A *failure* is a call without an answer, or an answer without items. A *degraded* answer is a page that
the model did not make (see `degraded` in the .proto): no failure, but no full answer either. Both have rows
of their own; the summary counts them apart. With a failure, or without any answer, Locust ends with status 1.
"""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental.gevent
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import RequestStats, StatsEntry

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from client.tables import degraded_name
from features.settings import load_settings
from loadtest._visitors import Visitors, newest_data

# After Locust has patched the standard library, and before any gRPC object exists.
grpc.experimental.gevent.init_gevent()

_SETTINGS = load_settings()
_CONNECTIONS = 16
"""Of each process; its users are spread over them. The kernel gives a connection to one gateway worker."""
_CONNECT_S = 5.0
_DEADLINE_S = 5.0
_PAGE = 10
_DIVERSE, _DIVERSITY = 0.1, 0.3
"""The share of the pages that are asked for with diversity, and how much of it."""
_RECOMMEND = "Recommend"
_DEGRADED = "Recommend, degraded: "
_FAILED = ", failed"


@functools.cache
def connect(address: str) -> Iterator[RecommenderStub]:
    """This process's connections in turn, for ever; made when first wanted: they would not survive a fork.

    Raises:
        ConnectionError: nothing answers at the address.
    """
    options = [
        # Else gRPC gives all channels of a process one connection.
        ("grpc.use_local_subchannel_pool", 1),
        # As the client does: `http_proxy` is for the web.
        ("grpc.enable_http_proxy", 0),
    ]
    channels = [grpc.insecure_channel(address, options=options) for _ in range(_CONNECTIONS)]
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
    except grpc.FutureTimeoutError:
        raise ConnectionError(f"no gateway answers at {address}: make up, or -H HOST:PORT") from None
    return itertools.cycle([RecommenderStub(channel) for channel in channels])


@functools.cache
def visitors(data: str) -> Visitors:
    """The user ids of this process; `data` empty: those of the newest data."""
    return Visitors(Path(data) if data else newest_data(_SETTINGS.state_dir))


class Visitor(User):
    """Asks for a page again and again; records a click on it now and then."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options: Any = environment.parsed_options
        self._stub = next(connect(address_of(environment)))
        self._visitors = visitors(options.data)
        self._think_s: float = options.think_s
        self._page: tuple[str, list[str]] = ("", [])

    def wait_time(self) -> float:
        """Seconds between a call's answer and the next call."""
        return self._think_s

    @task(20)
    def look(self) -> None:
        """One page of a user."""
        user_id = self._visitors.draw()
        diversity = _DIVERSITY if random.random() < _DIVERSE else 0.0
        request = pb.RecommendRequest(user_id=user_id, limit=_PAGE, diversity=diversity)
        answer = self._call(_RECOMMEND, self._stub.Recommend, request)
        self._page = (user_id, [item.item_id for item in answer.items] if answer else [])

    @task(1)
    def click(self) -> None:
        """A click on one item of the page seen last."""
        user_id, item_ids = self._page
        if not item_ids:
            return
        event = pb.Event(
            user_id=user_id, item_id=random.choice(item_ids), type=pb.EVENT_TYPE_CLICK, time=int(time.time())
        )
        self._call("RecordEvents", self._stub.RecordEvents, pb.RecordEventsRequest(events=[event]))

    def _call(self, name: str, method: Callable[..., Any], request: Any) -> Any:
        """The answer, or None; Locust is told of either, with the time between sending and receiving."""
        answer = None
        failure: Exception | None = None
        start = time.perf_counter()
        try:
            answer = method(request, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            failure = CallFailed(error)
            # A row of its own: the time of a refused connection says nothing about the time of an answer.
            name += _FAILED
        response_time_ms = (time.perf_counter() - start) * 1000
        if isinstance(answer, pb.RecommendResponse):
            name, failure = judge(answer)
        self.environment.events.request.fire(
            request_type="grpc",
            name=name,
            response_time=response_time_ms,
            response_length=answer.ByteSize() if answer is not None else 0,
            exception=failure,
            context={},
        )
        return answer


class CallFailed(Exception):
    """A call without an answer. Two of one status count as one kind of failure, whatever their sentences."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.code().name)


class EmptyPage(Exception):
    """An answer without items."""


def judge(answer: pb.RecommendResponse) -> tuple[str, Exception | None]:
    """The row that an answer is counted in, and why it is a failure, if it is."""
    name = _RECOMMEND
    if answer.degraded:
        name = _DEGRADED + degraded_name(answer.degraded)
    if not answer.items:
        return name + _FAILED, EmptyPage("a page without items")
    return name, None


def address_of(environment: Environment) -> str:
    """`host:port` of the gateway: -H, else the settings."""
    return (environment.host or _SETTINGS.gateway_target).removeprefix("http://").rstrip("/")


def add_options(parser: LocustArgumentParser) -> None:
    """Adds what Locust does not have."""
    parser.add_argument(
        "--data", default="", help="prepared data to take user ids from; the newest in var/data"
    )
    parser.add_argument("--think-s", type=float, default=0.0, help="pause of a user between calls, seconds")


def check_first(environment: Environment, **_: object) -> None:
    """Ends Locust with one line if there are no user ids or no gateway, before any user is started."""
    if isinstance(environment.runner, MasterRunner):
        return
    try:
        options: Any = environment.parsed_options
        visitors(options.data)
        connect(address_of(environment))
    except OSError as error:
        raise SystemExit(str(error)) from error


def summarise(environment: Environment, **_: object) -> None:
    """Prints the summary; a run without an answer is no success."""
    if isinstance(environment.runner, WorkerRunner):
        return
    options: Any = environment.parsed_options
    print(summary(environment.stats, options.num_users))
    if environment.stats.total.num_requests == 0:
        environment.process_exit_code = 1


def summary(stats: RequestStats, users: int | None) -> str:
    """Throughput, latency and degraded share of the answered Recommend calls, and how many failed."""
    rows = [row for row in stats.entries.values() if row.name.startswith(_RECOMMEND)]
    answered = StatsEntry(stats, "answered", "grpc")
    failed = degraded = 0
    for row in rows:
        if row.name.endswith(_FAILED):
            failed += row.num_requests
            continue
        answered.extend(row)
        degraded += row.num_requests if row.name.startswith(_DEGRADED) else 0
    count = answered.num_requests
    share = degraded / count if count else 0.0
    seconds = (stats.total.last_request_timestamp or 0.0) - stats.total.start_time
    rate = count / seconds if count and seconds > 0 else 0.0
    p50, p99 = (answered.get_response_time_percentile(part) for part in (0.50, 0.99))
    return "\n".join(
        [
            "",
            f"Recommend, {users} users in a closed loop:",
            f"  answered  {count}: {rate:.0f} per s, of them {rate * (1 - share):.0f} full answers",
            f"  p50 {p50:.0f} ms, p99 {p99:.0f} ms",
            f"  degraded  {degraded} ({share:.2%})",
            f"  failed    {failed}; of calls of every kind {stats.total.num_failures}",
        ]
    )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(check_first)
events.quitting.add_listener(summarise)
