"""What tests of the driver begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rollout import driver as driver_module
from rollout import loading
from rollout.trial import Trial
from tests.unit.rollout.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    async def fine(*_: Any, **__: Any) -> Trial:
        return Trial(16, 0.7, 1.0)

    monkeypatch.setattr(driver_module, "try_out", fine)
    # Time goes on by turns here.
    monkeypatch.setattr(loading, "_SETTLE_S", 0.0)
    monkeypatch.setattr(loading, "_AGAIN_S", 0.0)
    return World(tmp_path)
