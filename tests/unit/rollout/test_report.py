"""What an experiment has shown."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from features.control import Exposure
from features.lmdb_store import LmdbStore
from features.record import Event
from features.schema import EventType
from rollout.report import Share, difference, report
from rollout.tables import report_table


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    opened = LmdbStore(tmp_path, history_cap=50, map_bytes=64 << 20)
    yield opened
    await opened.close()


async def test_users_count_once_and_only_with_what_they_did_after_they_met_their_arm(
    store: LmdbStore,
) -> None:
    met = 1000
    await store.append([Event(user, "x", EventType.VIEW, 1) for user in "abcd"])
    for user, arm in (("a", "control"), ("b", "treatment"), ("c", "treatment"), ("d", "treatment")):
        await store.control.log_exposures([Exposure(user, f"larger/{arm}", met)])
    await store.control.log_exposures([Exposure("a", "other/treatment", met)])
    await store.append(
        [
            Event("a", "x", EventType.CLICK, met - 1),
            Event("b", "x", EventType.CLICK, met),
            Event("b", "y", EventType.CLICK, met + 1),
            Event("b", "y", EventType.PURCHASE, met + 2),
            Event("c", "y", EventType.VIEW, met + 2),
            Event("nobody", "x", EventType.CLICK, met + 1),
        ]
    )
    control, treatment = await report(store, "larger")
    assert (control.name, control.clicked, control.converted) == ("larger/control", Share(0, 1), Share(0, 1))
    assert (treatment.name, treatment.clicked, treatment.converted) == (
        "larger/treatment",
        Share(1, 3),
        Share(1, 3),
    )
    assert await report(store, "never") == []


async def test_what_users_did_after_the_end_does_not_count(store: LmdbStore) -> None:
    await store.append([Event(user, "x", EventType.VIEW, 1) for user in "ab"])
    await store.control.log_exposures([Exposure(user, "larger/control", 10) for user in "ab"])
    await store.append([Event("a", "x", EventType.CLICK, 20), Event("b", "x", EventType.CLICK, 21)])
    [control] = await report(store, "larger", until=20.5)
    assert control.clicked == Share(1, 2)
    [control] = await report(store, "larger")
    assert control.clicked == Share(2, 2)


async def test_a_user_who_was_forgotten_is_in_no_report(store: LmdbStore) -> None:
    await store.append([Event(user, "x", EventType.VIEW, 0) for user in "ab"])
    await store.control.log_exposures(
        [Exposure("a", "larger/control", 1), Exposure("b", "larger/control", 1)]
    )
    await store.forget("a")
    [control] = await report(store, "larger")
    assert control.clicked == Share(0, 1)


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20 and 1 of 29, method 3.
    assert Share(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Share(0, 20).interval == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert Share(1, 29).interval == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert Share(0, 0).interval == (0, 1)
    assert math.isnan(Share(0, 0).value)


def test_the_interval_of_the_difference_is_newcombes() -> None:
    # Newcombe 1998, table II: 56/70 − 48/80, 9/10 − 3/10, 10/10 − 0/20, method 10.
    assert difference(Share(56, 70), Share(48, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert difference(Share(9, 10), Share(3, 10)) == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)
    assert difference(Share(10, 10), Share(0, 20)) == pytest.approx((1.0, 0.6791, 1.0), abs=5e-5)


async def test_the_table_says_whether_the_arms_differ_beyond_chance(store: LmdbStore) -> None:
    users = [str(number) for number in range(200)]
    await store.append([Event(user, "x", EventType.VIEW, 0) for user in users])
    await store.control.log_exposures(
        [Exposure(user, f"larger/{'treatment' if int(user) % 2 else 'control'}", 1) for user in users]
    )
    await store.append([Event(user, "x", EventType.CLICK, 5) for user in users if int(user) % 2])
    console = Console(width=120)
    with console.capture() as captured:
        console.print(report_table(await report(store, "larger")))
    said = captured.get()
    assert "clicked: treatment − control +100.00 points" in said
    assert "excludes 0" in said
    assert "converted: treatment − control +0.00 points" in said
    assert "includes 0" in said
