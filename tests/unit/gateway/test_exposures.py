from __future__ import annotations

import logging
import time
from typing import cast

import pytest

from features.control import ControlStore
from gateway import exposures as module
from gateway.exposures import Exposures
from tests.unit.fake_control import FakeControl

ARM = "ads/treatment"


class Noted:
    """The exposures of a worker, and those in the store."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.exposures = Exposures(cast(ControlStore, self.control))

    async def stored(self) -> list[tuple[str, str]]:
        await self.exposures.write()
        return [(one.user_id, one.arm) for one in self.control.exposed]


@pytest.fixture
def noted() -> Noted:
    return Noted()


async def test_a_user_and_an_arm_are_written_once_with_the_time(noted: Noted) -> None:
    noted.exposures.note("u", ARM)
    noted.exposures.note("u", ARM)
    assert noted.control.exposed == []
    assert await noted.stored() == [("u", ARM)]
    noted.exposures.note("u", ARM)
    noted.exposures.note("v", ARM)
    noted.exposures.note("u", "prices/control")
    assert await noted.stored() == [("u", ARM), ("v", ARM), ("u", "prices/control")]
    assert abs(noted.control.exposed[0].at - time.time()) < 60


async def test_what_could_not_be_written_is_noted_again_at_the_next_call(
    noted: Noted, caplog: pytest.LogCaptureFixture
) -> None:
    noted.control.fails = True
    noted.exposures.note("u", ARM)
    with caplog.at_level(logging.WARNING):
        await noted.exposures.write()
    assert "to be noted at the users' next calls: 1 (told to fail)" in caplog.text
    noted.control.fails = False
    assert await noted.stored() == []
    noted.exposures.note("u", ARM)
    assert await noted.stored() == [("u", ARM)]


async def test_few_wait_and_the_others_are_counted_and_noted_at_their_next_call(
    noted: Noted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    for user in "abc":
        noted.exposures.note(user, ARM)
    with caplog.at_level(logging.WARNING):
        assert await noted.stored() == [("a", ARM), ("b", ARM)]
    assert "exposures without room, to be noted at the users' next calls: 1" in caplog.text
    noted.exposures.note("c", ARM)
    assert ("c", ARM) in await noted.stored()


async def test_what_is_remembered_is_bounded(noted: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KNOWN", 3)
    for n in range(100):
        noted.exposures.note(f"u{n}", ARM)
        assert len(noted.exposures._known) <= 3
    assert len(await noted.stored()) == 100


async def test_of_a_forgotten_user_nothing_is_written_and_one_who_comes_back_is_noted_anew(
    noted: Noted,
) -> None:
    noted.exposures.note("u", ARM)
    noted.exposures.note("v", ARM)
    noted.exposures.forget("u")
    assert await noted.stored() == [("v", ARM)]
    noted.exposures.note("u", ARM)
    assert ("u", ARM) in await noted.stored()


async def test_both_unicode_spellings_of_an_id_are_one_user(noted: Noted) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    noted.exposures.note(decomposed, ARM)
    noted.exposures.note(composed, ARM)
    assert await noted.stored() == [(decomposed, ARM)]
    noted.exposures.note(decomposed, "prices/control")
    noted.exposures.forget(composed)
    assert len(await noted.stored()) == 1
    noted.exposures.note(decomposed, "prices/control")
    assert (decomposed, "prices/control") in await noted.stored()
