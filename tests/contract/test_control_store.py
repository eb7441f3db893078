"""What every `ControlStore` must do."""

from __future__ import annotations

import asyncio

import pytest

from features.control import Document, Exposure
from features.record import Event
from features.schema import EventType
from features.store import FeatureStore
from tests.contract.conftest import Reopen

ODD_IDS = ["ü", "用户", "x" * 256, "x" * 255, "a b\n", "a", "a\u0000", "a\u0000b", "\u0000"]


def click(user: str) -> Event:
    return Event(user, "x", EventType.CLICK, 1)


async def meet(store: FeatureStore, *exposures: Exposure) -> None:
    """Users with a record meet arms."""
    await store.append([click(exposure.user_id) for exposure in exposures])
    await store.control.log_exposures(exposures)


async def test_a_document_that_nobody_wrote_has_revision_0(store: FeatureStore) -> None:
    assert await store.control.read_document("rollout/m") == Document(0, b"")


@pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256)), b"x" * 200_000], ids=len)
async def test_a_document_may_hold_any_bytes(store: FeatureStore, value: bytes) -> None:
    assert await store.control.replace_document("rollout/m", value, 0)
    assert await store.control.read_document("rollout/m") == Document(1, value)


async def test_every_change_of_a_document_makes_its_revision_higher(store: FeatureStore) -> None:
    control = store.control
    seen: list[int] = []
    for value in (b"one", b"two", b"two", b"one"):
        assert await control.replace_document("d", value, seen[-1] if seen else 0)
        document = await control.read_document("d")
        assert document.value == value
        seen.append(document.revision)
    assert seen == sorted(set(seen))
    assert seen[0] > 0


@pytest.mark.parametrize("revision", [0, 1, 3, -1])
async def test_a_change_of_another_revision_than_the_present_one_changes_nothing(
    store: FeatureStore, revision: int
) -> None:
    control = store.control
    await control.replace_document("d", b"one", 0)
    await control.replace_document("d", b"two", 1)
    assert not await control.replace_document("d", b"stale", revision)
    assert await control.read_document("d") == Document(2, b"two")


async def test_a_document_that_is_not_there_is_not_replaced_at_a_revision(store: FeatureStore) -> None:
    assert not await store.control.replace_document("d", b"one", 1)
    assert await store.control.read_document("d") == Document(0, b"")


async def test_documents_of_different_names_are_apart(store: FeatureStore) -> None:
    control = store.control
    await control.replace_document("rollout/a", b"of a", 0)
    await control.replace_document("rollout/ä", b"of the other", 0)
    await control.replace_document("rollout/a", b"of a again", 1)
    assert await control.read_document("rollout/a") == Document(2, b"of a again")
    assert await control.read_document("rollout/ä") == Document(1, b"of the other")


async def test_of_twenty_writers_at_once_none_loses_a_step(store: FeatureStore) -> None:
    control = store.control

    async def count_up() -> None:
        while True:
            document = await control.read_document("count")
            value = str(int(document.value or b"0") + 1).encode()
            if await control.replace_document("count", value, document.revision):
                return

    await asyncio.gather(*(count_up() for _ in range(20)))
    assert await control.read_document("count") == Document(20, b"20")


async def test_of_writers_at_the_same_revision_one_wins(store: FeatureStore) -> None:
    control = store.control
    won = await asyncio.gather(*(control.replace_document("d", b"%d" % n, 0) for n in range(20)))
    assert won.count(True) == 1
    assert await control.read_document("d") == Document(1, b"%d" % won.index(True))


async def test_a_change_that_was_answered_survives_a_restart(reopen: Reopen) -> None:
    store = await reopen()
    await store.control.replace_document("d", b"one", 0)
    await store.control.replace_document("d", b"two", 1)
    await meet(store, Exposure("u", "e/control", 5))
    control = (await reopen()).control
    assert await control.read_document("d") == Document(2, b"two")
    assert await control.exposures("e") == [Exposure("u", "e/control", 5)]
    assert not await control.replace_document("d", b"stale", 1)


async def test_the_last_report_of_each_source_is_there(store: FeatureStore) -> None:
    control = store.control
    assert await control.reports() == {}
    for source, value in (("one", b"old"), ("two", b"\x00\xff"), ("one", b"new"), ("drei/ü", b"")):
        await control.put_report(source, value)
    assert await control.reports() == {"one": b"new", "two": b"\x00\xff", "drei/ü": b""}


async def test_reports_of_sources_that_are_no_more_are_dropped(store: FeatureStore) -> None:
    control = store.control
    for source in ("one", "two", "three"):
        await control.put_report(source, source.encode())
    await control.drop_reports(["one", "three", "never was"])
    await control.drop_reports([])
    assert await control.reports() == {"two": b"two"}


async def test_of_a_users_exposures_to_an_experiment_the_first_stays(store: FeatureStore) -> None:
    control = store.control
    await meet(store, Exposure("u", "e/control", 5), Exposure("u", "e/treatment", 6))
    await meet(store, Exposure("u", "e/treatment", 4))
    assert await control.exposures("e") == [Exposure("u", "e/control", 5)]
    assert await control.exposures_of("u") == [Exposure("u", "e/control", 5)]


async def test_exposures_are_found_by_experiment_and_by_user(store: FeatureStore) -> None:
    control = store.control
    # One name begins with the other.
    met = [Exposure(user, arm, 5) for user in ("u", "v") for arm in ("colour/control", "colours/treatment")]
    await meet(store, *met, Exposure("w", "colours/control", 7))
    await control.log_exposures([])
    assert sorted(exposure.user_id for exposure in await control.exposures("colour")) == ["u", "v"]
    assert sorted(exposure.user_id for exposure in await control.exposures("colours")) == ["u", "v", "w"]
    assert await control.exposures("col") == []
    assert sorted(exposure.arm for exposure in await control.exposures_of("v")) == [
        "colour/control",
        "colours/treatment",
    ]
    assert await control.exposures_of("nobody") == []


async def test_exposures_of_ids_of_any_script_and_length_are_kept_apart(store: FeatureStore) -> None:
    control = store.control
    await meet(store, *(Exposure(user, "e/control", n) for n, user in enumerate(ODD_IDS)))
    assert len(await control.exposures("e")) == len(ODD_IDS)
    for n, user in enumerate(ODD_IDS):
        assert await control.exposures_of(user) == [Exposure(user, "e/control", n)]


async def test_both_unicode_spellings_of_an_id_are_one_user_who_is_exposed_once(store: FeatureStore) -> None:
    control = store.control
    await meet(store, Exposure("é", "e/control", 1), Exposure("e\u0301", "e/treatment", 2))
    assert await control.exposures_of("e\u0301") == [Exposure("é", "e/control", 1)]
    await store.forget("e\u0301")
    assert await control.exposures("e") == []


@pytest.mark.parametrize("user", ODD_IDS, ids=ascii)
async def test_a_forgotten_users_exposures_are_gone_and_all_others_stay(reopen: Reopen, user: str) -> None:
    store = await reopen()
    await store.append([click(each) for each in ODD_IDS])
    await store.control.log_exposures(
        [Exposure(each, arm, 5) for each in ODD_IDS for arm in ("e/control", "f/treatment")]
    )
    assert await store.forget(user)
    control = (await reopen()).control
    assert await control.exposures_of(user) == []
    for experiment in ("e", "f"):
        left = [exposure.user_id for exposure in await control.exposures(experiment)]
        assert sorted(left) == sorted(set(ODD_IDS) - {user})


async def test_an_exposure_that_comes_late_does_not_bring_a_forgotten_user_back(store: FeatureStore) -> None:
    await meet(store, Exposure("u", "e/control", 5), Exposure("v", "e/control", 5))
    await store.forget("u")
    await store.control.log_exposures([Exposure("u", "e/control", 5), Exposure("v", "f/control", 5)])
    assert await store.control.exposures_of("u") == []
    assert len(await store.control.exposures_of("v")) == 2


async def test_a_user_begun_anew_meets_an_experiment_anew(store: FeatureStore) -> None:
    await meet(store, Exposure("u", "e/control", 5))
    await store.forget("u")
    await meet(store, Exposure("u", "e/treatment", 9))
    assert await store.control.exposures("e") == [Exposure("u", "e/treatment", 9)]


async def test_what_is_kept_beside_users_is_not_among_them(store: FeatureStore) -> None:
    control = store.control
    await control.replace_document("d", b"one", 0)
    await control.put_report("one", b"report")
    await meet(store, Exposure("u", "e/control", 5))
    assert await store.sample_users(10) == ["u"]
    assert await store.excluded_users() == frozenset()
