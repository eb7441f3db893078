"""What every `FeatureStore` must do."""

from __future__ import annotations

import asyncio
from time import time_ns

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.record import CachedAnswer, Event
from features.schema import EventType, item_key
from features.store import FeatureStore
from tests.contract.conftest import CAP, Reopen


def click(user: str, item: str, time: int, weight: float = 1.0) -> Event:
    return Event(user, item, EventType.CLICK, time, weight)


def answer(revision: int, version: int = 3, page: tuple[int, ...] = (5, 4), at: int = 1000) -> CachedAnswer:
    vector, keys = np.array([0.5, -1.5], np.float32), np.array(page, np.int64)
    return CachedAnswer(version, revision, at, vector, keys, page_is_current=bool(page))


async def test_an_unknown_user_reads_as_an_empty_record(store: FeatureStore) -> None:
    [record] = await store.read(["nobody"])
    assert len(record.keys) == 0
    assert record.answer is None
    assert record.attributes == {}


async def test_read_keeps_the_order_of_the_ids_and_allows_repeats(store: FeatureStore) -> None:
    await store.append([click("a", "x", 1), click("b", "y", 1)])
    records = await store.read(["b", "nobody", "a", "b"])
    assert [r.keys.tolist() for r in records] == [[item_key("y")], [], [item_key("x")], [item_key("y")]]


async def test_events_are_kept_in_order_of_time_whatever_order_they_came_in(store: FeatureStore) -> None:
    await store.append([click("u", "late", 30), click("u", "early", 10, weight=2.5)])
    await store.append([click("u", "middle", 20)])
    [record] = await store.read(["u"])
    assert record.keys.tolist() == [item_key("early"), item_key("middle"), item_key("late")]
    assert record.times.tolist() == [10, 20, 30]
    assert record.weights.tolist() == [2.5, 1.0, 1.0]
    assert record.types.tolist() == [EventType.CLICK] * 3


async def test_the_same_event_is_stored_once(store: FeatureStore) -> None:
    first = await store.append([click("u", "x", 1), click("u", "x", 1)])
    again = await store.append([click("u", "x", 1), click("u", "x", 2), Event("u", "x", EventType.LIKE, 1)])
    assert (first.recorded, first.duplicates) == (1, 1)
    assert (again.recorded, again.duplicates) == (2, 1)
    [record] = await store.read(["u"])
    assert len(record.keys) == 3


async def test_beyond_the_cap_the_oldest_events_go(store: FeatureStore) -> None:
    await store.append([click("u", f"i{n}", n) for n in range(1, CAP + 6)])
    [record] = await store.read(["u"])
    assert record.times.tolist() == list(range(6, CAP + 6))


async def test_acknowledged_events_survive_a_restart(reopen: Reopen) -> None:
    await (await reopen()).append([click("u", "x", 1)])
    [record] = await (await reopen()).read(["u"])
    assert record.keys.tolist() == [item_key("x")]


async def test_what_it_was_loaded_with_is_known_after_a_restart(
    reopen: Reopen,
) -> None:
    store = await reopen()
    assert await store.loaded_data() == ""
    await store.mark_loaded("data 1")
    await store.mark_loaded("data 2")
    store = await reopen()
    assert await store.loaded_data() == "data 2"
    assert await store.sample_users(10) == []


async def test_concurrent_appends_lose_nothing(store: FeatureStore) -> None:
    await asyncio.gather(*(store.append([click(f"u{n % 5}", f"i{n}", n + 1)]) for n in range(90)))
    records = await store.read([f"u{n}" for n in range(5)])
    assert [len(record.keys) for record in records] == [18] * 5


async def test_ids_of_any_script_and_full_length_are_kept_apart(store: FeatureStore) -> None:
    ids = ["ü", "用户", "x" * 256, "x" * 255, "a b\n", "\u0000"]
    await store.append([click(user, f"of {n}", 1) for n, user in enumerate(ids)])
    assert [r.keys.tolist() for r in await store.read(ids)] == [
        [item_key(f"of {n}")] for n in range(len(ids))
    ]
    assert sorted(await store.sample_users(100)) == sorted(ids)


async def test_both_unicode_spellings_of_an_id_are_one_user(store: FeatureStore) -> None:
    await store.append([click("é", "x", 1)])
    [record] = await store.read(["e\u0301"])
    assert record.keys.tolist() == [item_key("x")]


async def test_an_answer_is_fresh_until_the_history_changes(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    [record] = await store.read(["u"])
    await store.put_answers({"u": answer(record.revision)})
    [record] = await store.read(["u"])
    assert record.fresh_answer is not None
    assert record.fresh_answer.vector.tolist() == [0.5, -1.5]
    assert record.fresh_answer.page_keys.tolist() == [5, 4]
    assert record.fresh_answer.version == 3
    await store.append([click("u", "y", 2)])
    [record] = await store.read(["u"])
    assert record.fresh_answer is None
    assert record.answer is not None


async def test_an_answer_to_an_older_history_is_kept_as_one_that_is_behind(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    [old] = await store.read(["u"])
    await store.append([click("u", "y", 2)])
    await store.put_answers({"u": answer(old.revision)})
    [record] = await store.read(["u"])
    assert record.fresh_answer is None
    assert record.answer is not None
    assert (record.answer.revision, record.answer.behind_since) == (old.revision, 1000 * 10**9)
    await store.put_answers({"u": answer(record.revision)})
    [record] = await store.read(["u"])
    assert record.fresh_answer is not None
    assert record.fresh_answer.behind_since == 0


async def test_an_answer_is_behind_since_the_first_change_that_it_does_not_cover(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    [record] = await store.read(["u"])
    await store.put_answers({"u": answer(record.revision)})
    before = time_ns()
    await store.append([click("u", "y", 2)])
    after = time_ns()
    await store.append([click("u", "z", 3)])
    await store.set_attributes({"u": {"gender": "F"}})
    [record] = await store.read(["u"])
    assert record.answer is not None
    assert before <= record.answer.behind_since <= after


async def test_a_page_that_is_kept_with_a_vector_that_is_behind_leaves_it_behind_since_then(
    store: FeatureStore,
) -> None:
    await store.append([click("u", "x", 1)])
    [record] = await store.read(["u"])
    await store.put_answers({"u": answer(record.revision, page=())})
    await store.append([click("u", "y", 2)])
    [behind] = await store.read(["u"])
    assert behind.answer is not None
    await store.put_answers({"u": answer(record.revision, page=(7,))})
    [again] = await store.read(["u"])
    assert again.answer is not None
    assert again.answer.page_keys.tolist() == [7]
    assert again.answer.behind_since == behind.answer.behind_since > 1000 * 10**9


async def test_an_answer_never_takes_the_place_of_a_newer_one(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    [older] = await store.read(["u"])
    await store.append([click("u", "y", 2)])
    [newer] = await store.read(["u"])
    await store.put_answers({"u": answer(newer.revision, version=4, at=2000)})
    for late in (
        answer(older.revision, version=5, at=3000),  # of an older history
        answer(newer.revision, version=5, at=1999),  # of the same one, computed earlier
        answer(newer.revision, version=3, at=2000),  # of an older version, in the same second
        answer(newer.revision + 1, version=5, at=3000),  # of a history that never was
    ):
        await store.put_answers({"u": late})
        [record] = await store.read(["u"])
        assert record.answer is not None
        assert (record.answer.version, record.answer.computed_at) == (4, 2000)
    await store.put_answers({"u": answer(newer.revision, version=5, at=2000)})
    [record] = await store.read(["u"])
    assert record.answer is not None
    assert record.answer.version == 5


async def test_an_answer_without_a_page_leaves_the_page_before_it_which_is_not_current(
    store: FeatureStore,
) -> None:
    await store.append([click("u", "x", 1)])
    [record] = await store.read(["u"])
    await store.put_answers({"u": answer(record.revision)})
    await store.put_answers({"u": answer(record.revision, version=4, page=())})
    [record] = await store.read(["u"])
    assert record.answer is not None
    assert (record.answer.version, record.answer.page_keys.tolist()) == (4, [5, 4])
    assert not record.answer.page_is_current
    await store.put_answers({"u": answer(record.revision, version=4, page=(6,))})
    [record] = await store.read(["u"])
    assert record.answer is not None
    assert record.answer.page_is_current


async def test_attributes_are_replaced_and_outdate_the_answer(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    await store.set_attributes({"u": {"gender": "F", "job": "Ärztin"}})
    [record] = await store.read(["u"])
    await store.put_answers({"u": answer(record.revision)})
    await store.set_attributes({"u": {"gender": "F", "job": "Ärztin"}})
    [same] = await store.read(["u"])
    await store.set_attributes({"u": {"gender": "M"}})
    [changed] = await store.read(["u"])
    assert record.attributes == {"gender": "F", "job": "Ärztin"}
    assert same.fresh_answer is not None
    assert changed.attributes == {"gender": "M"}
    assert changed.fresh_answer is None
    assert changed.keys.tolist() == [item_key("x")]


async def test_a_forgotten_user_is_gone_and_excluded_for_good(
    reopen: Reopen,
) -> None:
    store = await reopen()
    await store.append([click("u", "x", 1), click("v", "x", 1)])
    [before] = await store.read(["u"])
    assert await store.forget("u") is True
    assert await store.forget("u") is False
    await store.put_answers({"u": answer(before.revision)})
    store = await reopen()
    [record] = await store.read(["u"])
    assert len(record.keys) == 0
    assert record.answer is None
    assert await store.excluded_users() == {"u"}
    assert await store.is_excluded("u")
    assert not await store.is_excluded("v")
    assert await store.sample_users(10) == ["v"]


async def test_loading_old_events_does_not_bring_a_forgotten_user_back_but_a_new_event_does(
    store: FeatureStore,
) -> None:
    await store.forget("u")
    loaded = await store.append([click("u", "x", 1), click("v", "x", 1)], leave_out_excluded=True)
    await store.set_attributes({"u": {"gender": "F"}, "v": {"gender": "F"}})
    u, v = await store.read(["u", "v"])
    assert (loaded.recorded, loaded.duplicates) == (1, 0)
    assert (len(u.keys), u.attributes) == (0, {})
    assert (len(v.keys), v.attributes) == (1, {"gender": "F"})
    await store.append([click("u", "y", 2)])
    [u] = await store.read(["u"])
    assert len(u.keys) == 1


async def test_a_user_begun_anew_does_not_get_an_answer_of_the_old_history(store: FeatureStore) -> None:
    await store.append([click("u", "x", 1)])
    [before] = await store.read(["u"])
    await store.forget("u")
    await store.append([click("u", "y", 1)])
    await store.put_answers({"u": answer(before.revision)})
    [record] = await store.read(["u"])
    assert record.answer is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.lists(
            st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.integers(1, 9)),
            min_size=1,
            max_size=8,
        ),
        max_size=8,
    )
)
async def test_any_sequence_of_appends_gives_the_newest_distinct_events_by_time(
    store: FeatureStore, calls: list[list[tuple[str, str, int]]]
) -> None:
    prefix = f"{id(calls)}-{len(calls)}-"
    for user in "uvw":
        await store.forget(prefix + user)
    expected: dict[str, dict[tuple[str, int], None]] = {user: {} for user in "uvw"}
    for call in calls:
        await store.append([click(prefix + user, item, time) for user, item, time in call])
        for user, item, time in call:
            expected[user].setdefault((item, time))
    records = await store.read([prefix + user for user in "uvw"])
    for record, events in zip(records, expected.values(), strict=True):
        ordered = sorted(events, key=lambda event: event[1])[-CAP:]
        assert record.keys.tolist() == [item_key(item) for item, _ in ordered]
        assert record.times.tolist() == [time for _, time in ordered]
