"""`locust -f loadtest/` as people start it, and a small gateway whose answers the test chooses.

Each takes seconds to start, and then mostly waits: a module of tests has all its runs `at_once`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pyarrow
import pyarrow.parquet

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import (
    RecommenderServicer,
    add_RecommenderServicer_to_server,
)
from tests.ports import free_ports

ROOT = Path(__file__).parents[3]
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/", "--headless", "-u", "4"]
# Nobody answers there: what goes through the proxy of the environment fails.
PROXY = {
    "http_proxy": "http://127.0.0.1:1",
    "grpc_proxy": "http://127.0.0.1:1",
    "no_proxy": "",
    "no_grpc_proxy": "",
}
BROWSING = [
    word for name in ("anonymous", "heavy", "bulk", "similar", "plain") for word in (f"--{name}", "0")
]
"""Nobody but users who browse."""
EVENTS = {"née": 1, "calm": 2, "busy": 9}
"""The users of the tests, and how many events they have."""
ITEM = pb.RecommendedItem(item_id="i1", rank=1)
MODEL = pb.ModelVersion(name="recommender", version=7)
LENIENT = "p50_ms = 4000\np99_ms = 5000\nerror_rate = 0\ndegraded_rate = 0\n"
"""A service level that a busy machine keeps, too."""
_AT_ONCE = 4
_T = TypeVar("_T")


class Gateway(RecommenderServicer):
    """Answers every page with `page`, or refuses it if there is none; counts the events it gets."""

    def __init__(self) -> None:
        self.page: pb.RecommendResponse | None = pb.RecommendResponse(items=[ITEM], model=MODEL)
        self.refuses_every = 0
        """Each of so many pages; 0: none."""
        self.answers_after_s = 0.0
        self.slow_users: set[str] = set()
        self.slow_s = 0.0
        self.silent_s = 0.0
        """How long after its first call it begins to answer."""
        self.first_call = 0.0
        self.requests: list[Any] = []
        self.peers: dict[str, list[Any]] = {}
        """Connection → the requests that came by it."""
        self.users: Counter[str] = Counter()
        self.events: list[pb.Event] = []
        self.address = ""

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        self.first_call = self.first_call or time.monotonic()
        slow = self.slow_s if request.user_id in self.slow_users else 0.0
        time.sleep(max(slow, self.answers_after_s, self.first_call + self.silent_s - time.monotonic()))
        self._note(request, context)
        self.users[request.user_id] += 1
        if self.page is None or (self.refuses_every and self.users.total() % self.refuses_every == 0):
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        assert self.page is not None
        return self.page

    def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        self._note(request, context)
        self.events.extend(request.events)
        return pb.RecordEventsResponse(recorded=len(request.events))

    def SimilarItems(self, request: Any, context: Any) -> pb.SimilarItemsResponse:
        self._note(request, context)
        return pb.SimilarItemsResponse(items=[ITEM])

    def _note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.peers.setdefault(context.peer(), []).append(request)


def own_port() -> tuple[str, ...]:
    """For a run of several processes: Locust's port is one for the whole machine."""
    port = str(free_ports(1)[0])
    return "--master-bind-port", port, "--master-port", port


@contextmanager
def serving(**how: Any) -> Iterator[Gateway]:
    """A gateway, of which these attributes are set, until the block ends."""
    server = grpc.server(ThreadPoolExecutor(128))
    gateway = Gateway()
    vars(gateway).update(how)
    add_RecommenderServicer_to_server(gateway, server)
    gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield gateway
    finally:
        server.stop(None).wait()


def prepared(folder: Path) -> Path:
    """The folder, made, with data of the users of the tests."""
    folder.mkdir(parents=True)
    users = [user for user, count in EVENTS.items() for _ in range(count)]
    pyarrow.parquet.write_table(pyarrow.table({"user_id": users}), folder / "events.parquet")
    return folder


@dataclass(frozen=True)
class Done:
    """A run that has ended; `report` is empty if it has written none."""

    status: int
    output: str
    gateway: Gateway
    report: dict[str, Any] = field(default_factory=dict)


def locust(
    address: str,
    data: Path,
    *words: str,
    seconds: int = 2,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Exit status and output of a short run."""
    if "--processes" in words:
        words += own_port()
    done = subprocess.run(
        [*LOCUST, "-t", f"{seconds}s", "-H", address, "--data", str(data), *words],
        cwd=ROOT,
        env={**os.environ, **PROXY, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def run(
    folder: Path,
    *words: str,
    seconds: int = 2,
    variables: Mapping[str, str] | None = None,
    **how: Any,
) -> Done:
    """A run with data and a gateway of its own; `how` the gateway answers, by its attributes."""
    data = prepared(folder)
    path = data / "report.json"
    with serving(**how) as gateway:
        status, output = locust(
            gateway.address, data, "--report", str(path), *words, seconds=seconds, variables=variables
        )
    written = path.exists() and path.stat().st_size > 0
    return Done(status, output, gateway, json.loads(path.read_text()) if written else {})


def at_once(runs: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
    """What they return, some of them at the same time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        under_way = {name: pool.submit(each) for name, each in runs.items()}
        return {name: each.result() for name, each in under_way.items()}
