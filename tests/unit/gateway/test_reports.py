from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

import pytest

from features.catalog import Catalog
from features.control import ControlStore
from features.figures import decode
from gateway.figures import Figures
from gateway.reports import Reports
from gateway.routing import Router
from tests.unit.fake_control import FakeControl
from tests.unit.gateway.fakes import FakeRouter, serving_version


class Reporting:
    """A worker's reports, and where they go."""

    def __init__(self, catalog: Catalog) -> None:
        self.control, self.figures = FakeControl(), Figures()
        self.router = FakeRouter(serving_version(7, catalog), serving_version(8, catalog))
        self.reports = self.another()

    def another(self) -> Reports:
        return Reports(cast(ControlStore, self.control), cast(Router, self.router), self.figures)


@pytest.fixture
def reporting(catalog: Catalog) -> Reporting:
    return Reporting(catalog)


async def test_a_report_says_what_can_be_called_what_is_obeyed_and_all_that_was_counted(
    reporting: Reporting,
) -> None:
    reporting.router.revision = 4
    reporting.router.refused[9] = "it lacks the output 'scores'"
    for _ in range(2):
        reporting.figures.answered(7, [3.0])
        await reporting.reports.write()
    [value] = reporting.control.written.values()
    report = decode(value)
    assert (report.revision, report.ready) == (4, {7, 8})
    assert report.refused == {9: "it lacks the output 'scores'"}
    assert report.versions[7].calls == 2
    assert abs(report.at - time.time()) < 60


async def test_every_worker_has_a_report_of_its_own(reporting: Reporting) -> None:
    await reporting.reports.write()
    await reporting.another().write()
    assert len(reporting.control.written) == 2


async def test_a_store_that_fails_harms_nothing_is_said_once_and_loses_nothing(
    reporting: Reporting, caplog: pytest.LogCaptureFixture
) -> None:
    reporting.control.fails = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            reporting.figures.failed(8)
            await reporting.reports.write()
    assert caplog.text.count("figures are not reported: told to fail") == 1
    reporting.control.fails = False
    await reporting.reports.write()
    [value] = reporting.control.written.values()
    assert decode(value).versions[8].errors == 3


async def test_a_store_that_hangs_is_not_waited_for(
    reporting: Reporting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(source: str, value: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(reporting.control, "put_report", hang)
    monkeypatch.setattr("gateway.reports._WRITE_TIMEOUT_S", 0.01)
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(reporting.reports.write(), 60)
    assert "no answer in time" in caplog.text
