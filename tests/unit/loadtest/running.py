"""`locust -f loadtest/` as people start it, and a small gateway whose answers the test chooses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer

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
        self.users: Counter[str] = Counter()
        self.peers: set[str] = set()
        self.events: list[pb.Event] = []
        self.address = ""

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        self.first_call = self.first_call or time.monotonic()
        slow = self.slow_s if request.user_id in self.slow_users else 0.0
        time.sleep(max(slow, self.answers_after_s, self.first_call + self.silent_s - time.monotonic()))
        self.requests.append(request)
        self.users[request.user_id] += 1
        self.peers.add(context.peer())
        if self.page is None or (self.refuses_every and self.users.total() % self.refuses_every == 0):
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        assert self.page is not None
        return self.page

    def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        self.requests.append(request)
        self.events.extend(request.events)
        return pb.RecordEventsResponse(recorded=len(request.events))

    def SimilarItems(self, request: Any, context: Any) -> pb.SimilarItemsResponse:
        self.requests.append(request)
        return pb.SimilarItemsResponse(items=[ITEM])


def locust(address: str, data: Path, *words: str, seconds: int = 2) -> tuple[int, str]:
    """Exit status and output of a short run."""
    done = subprocess.run(
        [*LOCUST, "-t", f"{seconds}s", "-H", address, "--data", str(data), *words],
        cwd=ROOT,
        env=os.environ | PROXY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def figures(address: str, data: Path, *words: str, seconds: int = 2) -> dict[str, Any]:
    """What `--report` says of a run, with its `status` and `output`."""
    report = data / "report.json"
    status, output = locust(address, data, "--report", str(report), *words, seconds=seconds)
    assert report.exists(), output
    return {"status": status, "output": output, **json.loads(report.read_text())}
