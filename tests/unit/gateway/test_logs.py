"""What is written of calls when thousands of them fail in a second."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import logs


class Clock:
    """The time that a test says it is."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logs, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in logs._CALL_BY_CALL:
        logging.getLogger(name).filters.clear()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def refuse(request_id: str, code: str = "NOT_FOUND", error: str = "NotFound") -> None:
    fields = {"method": "Recommend", "request_id": request_id, "code": code, "error": error}
    logging.getLogger("riptide.gateway.calls").info("%s", f"about {request_id}", extra=fields)


def raised(key: str, *, elsewhere: bool) -> KeyError:
    try:
        if elsewhere:
            raise KeyError(key)
        raise KeyError(key)
    except KeyError as error:
        return error


def test_of_a_kind_one_line_a_second_is_written_with_the_count_of_the_others(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO")
    for number in range(1000):
        refuse(f"r{number}")
    clock.s += 1
    refuse("later")
    clock.s += 1
    refuse("last")
    first, later, last = lines(capsys)
    assert (first["request_id"], first["message"]) == ("r0", "about r0")
    assert (later["request_id"], later["left_out"]) == ("later", 999)
    assert "left_out" not in first
    assert "left_out" not in last


def test_one_kind_does_not_hide_another(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    log = logging.getLogger("riptide.gateway.recommend")
    for _ in range(2):
        refuse("a")
        refuse("b", "INVALID_ARGUMENT")
        log.warning("fallback page: %s", "the disk")
        log.info("fallback page: %s", "the disk")
        refuse("c", "RESOURCE_EXHAUSTED", "Overloaded")
        refuse("d", "RESOURCE_EXHAUSTED", "StoreFull")
        for error in (raised("k", elsewhere=False), raised("k", elsewhere=True), ValueError("v")):
            log.error("fallback page", exc_info=error)
    assert len(lines(capsys)) == 9


@pytest.mark.parametrize(("every_call", "logger"), [(True, "calls"), (False, "supervisor")])
def test_all_is_written_of_what_does_not_come_call_by_call_and_if_every_call_is_wanted(
    clock: Clock, capsys: pytest.CaptureFixture[str], every_call: bool, logger: str
) -> None:
    logs.configure("INFO", every_call=every_call)
    for pid in range(4):
        logging.getLogger(f"riptide.gateway.{logger}").error("worker %d ended", pid)
    assert [line["message"] for line in lines(capsys)] == [f"worker {pid} ended" for pid in range(4)]
