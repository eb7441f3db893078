"""Load tests from Locust's web page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports
from tests.unit.loadtest.running import PROXY, ROOT, Gateway, at_once, own_port, prepared, serving

LIMIT_S = 60.0
ONLY_PLAIN = dict.fromkeys(("browsing", "anonymous", "heavy", "bulk", "similar"), "0") | {"plain": "1"}


class Page:
    """The web page of a load test, in use; `output` once it has ended."""

    def __init__(self, port: int, report: Path) -> None:
        self._port, self._report = port, report
        self.output = ""

    def ask(self, path: str, form: dict[str, str] | None = None) -> str:
        body = urllib.parse.urlencode(form).encode() if form else None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self._port}{path}", body, timeout=10) as answer:
            return str(answer.read().decode())

    def begin(self, gateway: Gateway, **form: str) -> dict[str, Any]:
        """What it answers to the form."""
        filled = {"user_count": "3", "spawn_rate": "100", "host": gateway.address, "rate_per_user": "10"}
        answer: dict[str, Any] = json.loads(self.ask("/swarm", filled | ONLY_PLAIN | form))
        return answer

    def report(self) -> dict[str, Any]:
        """That of the next run to end."""
        wait_for(lambda: self._report.exists() and self._report.read_text().endswith("}\n"))
        found: dict[str, Any] = json.loads(self._report.read_text())
        self._report.unlink()
        return found


def wait_for(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def web_page(gateway: Gateway, data: Path, words: Sequence[str] = ()) -> Iterator[Page]:
    port = free_ports(1)[0]
    report = data / "report.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "locust", "-f", "loadtest/", "-H", gateway.address),
            *("--data", str(data), "--report", str(report)),
            *("--web-host", "127.0.0.1", "--web-port", str(port), *words),
        ],
        cwd=ROOT, env=os.environ | PROXY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    page = Page(port, report)

    def answers() -> bool:
        try:
            return bool(page.ask("/"))
        except OSError:
            return False

    try:
        wait_for(answers)
        report.unlink(missing_ok=True)  # made empty when it was tried
        yield page
    finally:
        process.terminate()
        page.output, _ = process.communicate(timeout=LIMIT_S)


@dataclass(frozen=True)
class Session:
    """What somebody did with a web page, one thing after the other, and what came of it."""

    form: str
    too_little: dict[str, Any]
    unknown: dict[str, Any]
    calls_until_then: int
    spike: dict[str, Any]
    steady: dict[str, Any]
    kinds: set[str]
    """Of requests."""
    output: str


def session(folder: Path, *words: str) -> Session:
    with serving() as gateway, web_page(gateway, prepared(folder), words) as page:
        form = page.ask("/")
        too_little = page.begin(gateway, shape="ramp", run_time="")
        unknown = page.begin(gateway, shape="circle", run_time="5s")
        calls_until_then = len(gateway.requests)
        page.begin(gateway, user_count="10", shape="spike", run_time="8s")
        spike = page.report()
        # The form that was filled in last is no part of the next run.
        page.begin(gateway, user_count="4", shape="steady", run_time="")
        calls = len(gateway.requests)
        wait_for(lambda: len(gateway.requests) >= calls + 40)
        page.ask("/stop", {"": ""})
        steady = page.report()
    kinds = {type(request).__name__ for request in gateway.requests}
    return Session(form, too_little, unknown, calls_until_then, spike, steady, kinds, page.output)


@pytest.fixture(scope="module")
def sessions(folder: Path) -> dict[str, Session]:
    return at_once(
        {
            "one process": partial(session, folder / "one"),
            "several": partial(session, folder / "several", "--processes", "2", *own_port()),
        }
    )


@pytest.fixture(params=["one process", "several"])
def done(request: pytest.FixtureRequest, sessions: dict[str, Session]) -> Session:
    found: Session = sessions[request.param]
    return found


def test_a_run_from_the_web_page_is_summarised_when_it_ends(done: Session) -> None:
    assert "rate_per_user" in done.form, "the web form has our options"
    # Of forty and more, but for those before all were there and those in flight.
    assert done.steady["pages"]["count"] >= 30
    assert done.output.count("in an open loop") == 2, done.output
    assert "Traceback" not in done.output
    assert done.kinds == {"RecommendRequest"}, "the mix of the form"


def test_the_web_form_chooses_the_shape_of_each_run(done: Session) -> None:
    assert "spike" in done.form, "the form offers shapes"
    assert [part["users"] for part in done.spike["parts"]] == [2] * 3 + [10] * 2 + [2] * 3, done.output
    pages = [part["pages"]["count"] for part in done.spike["parts"]]
    assert max(pages) > 2 * pages[0], done.output
    assert done.steady["parts"] == []
    assert done.steady["users"] == 4


def test_a_shape_of_which_the_form_says_too_little_is_refused_in_it(done: Session) -> None:
    assert not done.too_little["success"]
    sentence = "--shape ramp: say with -u how many users there are, and with -t for how long"
    assert sentence in done.too_little["message"]
    assert not done.unknown["success"]
    assert "there is no such shape; there are steady, ramp, " in done.unknown["message"]
    assert done.calls_until_then == 0
