from __future__ import annotations

import logging
import os

import pytest

from gateway import worker


@pytest.mark.parametrize("refusal", [PermissionError(1, "Operation not permitted"), OSError(22, "Invalid")])
def test_a_sandbox_that_keeps_the_schedulers_classes_does_not_keep_a_worker_from_serving(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusal: OSError
) -> None:
    def refused(*_: object) -> None:
        raise refusal

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # whichever threads there are, one is not the first
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    worker.let_the_event_loop_run()
    assert str(refusal) in caplog.text
