"""Adding up what gateways report, and what a driver reads from it."""

from __future__ import annotations

import logging

import pytest

from features.figures import Report, VersionFigures
from rollout.window import FRESH_S, drop_old_reports, look
from tests.unit.fake_control import FakeControl


def report(at: float, revision: int = 1, refused: dict[int, str] | None = None, **calls: int) -> bytes:
    """A report with so many calls of version N as `vN` says."""
    versions = {int(name[1:]): VersionFigures(calls=count) for name, count in calls.items()}
    return Report(at, revision, frozenset(versions), refused or {}, versions).encode()


async def test_a_window_holds_what_was_counted_in_it_also_by_workers_that_came_or_went() -> None:
    control = FakeControl()
    await control.put_report("old", report(99.0, v1=100))
    await control.put_report("steady", report(99.0, v1=1000, v2=10))
    before = await look(control, 100.0)
    await control.put_report("old", report(100.5, v1=107))  # and then it was killed
    await control.put_report("steady", report(110.0, v1=1500, v2=25))
    await control.put_report("new", report(110.0, v2=4))
    now = await look(control, 110.0)
    counted = now.since(before)
    assert {version: figures.calls for version, figures in counted.items()} == {1: 507, 2: 19}
    assert len(now.fresh) == 2


async def test_gateways_obey_when_every_living_one_does() -> None:
    control = FakeControl()
    await control.put_report("a", report(100.0, revision=7))
    await control.put_report("b", report(100.0, revision=6))
    assert not (await look(control, 100.0)).obeyed(7)
    assert (await look(control, 100.0)).obeyed(6)
    await control.put_report("a", report(101.0 + FRESH_S, revision=7))
    assert (await look(control, 101.0 + FRESH_S)).obeyed(7)


async def test_a_gateway_that_cannot_serve_a_version_is_heard() -> None:
    control = FakeControl()
    await control.put_report("a", report(100.0, v1=1))
    await control.put_report("b", report(100.0, refused={2: "it wants an input 'mood'"}))
    seen = await look(control, 100.0)
    assert seen.refusal(2) == "it wants an input 'mood'"
    assert seen.refusal(1) is None


async def test_a_report_that_cannot_be_read_is_passed_over_and_told_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    control = FakeControl()
    await control.put_report("odd", b"of another time")
    await control.put_report("good", report(100.0, v1=3))
    assert set((await look(control, 100.0)).reports) == {"good"}
    with caplog.at_level(logging.WARNING):
        await drop_old_reports(control, 100.0)
    assert "gateway odd" in caplog.text
    assert set(control.written) == {"good"}


async def test_workers_that_have_been_gone_for_an_hour_are_forgotten() -> None:
    control = FakeControl()
    await control.put_report("gone", report(100.0, v1=1))
    await control.put_report("here", report(4000.0, v1=1))
    await drop_old_reports(control, 4000.0)
    assert set(control.written) == {"here"}
