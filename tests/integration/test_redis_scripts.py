"""What the scripts do inside a real server, beside what `features.record` does: equal to the last byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import features.record
import features.redis_store
from features.record import (
    EMPTY_RECORD,
    CachedAnswer,
    Event,
    UserRecord,
    decode,
    encode,
    with_answer,
    with_attributes,
    with_events,
)
from features.redis_address import parse
from features.redis_keys import of_user
from features.redis_store import RedisStore
from features.schema import EventType
from features.store import Appended
from tests.valkey import Valkey, one_server

MOST = 2**63 - 1


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with one_server(tmp_path_factory.mktemp("valkey"), "--appendonly", "no") as server:
        yield server


@dataclass
class Model:
    """What a store must hold, by the functions of `features.record`."""

    cap: int
    values: dict[str, bytes] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)
    revisions: list[int] = field(default_factory=lambda: [0])

    def get(self, user: str) -> UserRecord:
        return decode(self.values[user]) if user in self.values else EMPTY_RECORD

    def put(self, user: str, old: UserRecord, record: UserRecord) -> None:
        if record is not old:
            self.values[user] = encode(record)
            self.revisions.append(record.revision)

    def append(self, events: list[Event], leave_out: bool) -> Appended:
        recorded = duplicates = 0
        for user in sorted({event.user_id for event in events}):
            if leave_out and user in self.excluded:
                continue
            own = [event for event in events if event.user_id == user]
            old = self.get(user)
            record, new, known = with_events(old, own, self.cap)
            self.put(user, old, record)
            recorded, duplicates = recorded + new, duplicates + known
        return Appended(recorded, duplicates)


users = st.sampled_from("ab")
# Where doubles have gaps, around zero, and few enough to meet each other.
times = st.integers(-2, 6) | st.sampled_from([2**32, 2**53, 2**53 + 1, 2**53 + 2, MOST - 1, MOST, -MOST])
events = st.builds(
    Event,
    user_id=users,
    item_id=st.sampled_from("pqrs"),
    type=st.sampled_from([EventType.VIEW, EventType.CLICK]),
    time=times,
    weight=st.floats(width=32, allow_nan=False),
)
# Clocks stand still, go back, and pass 2^32 and 2^53.
clocks = st.integers(1, 5) | st.sampled_from([2**32 - 1, 2**32, 2**53, 2**53 + 1, 1_790_000_000_123_456_789])
Operation: TypeAlias = tuple[str, int, object]
appends = st.tuples(
    st.just("append"), clocks, st.tuples(st.lists(events, min_size=1, max_size=12), st.booleans())
)
attributes = st.tuples(
    st.just("attributes"), clocks, st.tuples(users, st.sampled_from([{}, {"g": "F"}, {"g": "ü", "a": "1"}]))
)
answers = st.tuples(
    st.just("answer"),
    clocks,
    st.tuples(
        users,
        st.sampled_from([0, 0, 0, 1, 2, 5]),  # how many revisions ago
        st.sampled_from([0, 0, 0, -1, 1]),  # how far from it
        st.sampled_from([0, 1, 2, 2**53, 2**53 + 1]),
        st.integers(0, 3),
        st.lists(st.floats(width=32, allow_nan=False), max_size=3),
        st.lists(st.integers(-MOST, MOST), max_size=3),
        st.booleans(),
    ),
)
forgets = st.tuples(st.just("forget"), clocks, users)
operations = st.lists(appends | appends | attributes | answers | answers | forgets, max_size=14)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cap=st.integers(1, 9), operations=operations)
@example(
    cap=5,
    operations=[
        ("append", 2**53, ([Event("a", "p", EventType.CLICK, 1)], False)),
        ("answer", 1, ("a", 0, 0, 1, 1, [1.0], [1], True)),
        ("append", 2**53, ([Event("a", "q", EventType.CLICK, 1)], False)),
        ("append", 2**53, ([Event("a", "r", EventType.CLICK, 1)], False)),
        ("answer", 1, ("a", 1, 0, 1, 1, [2.0], [], True)),
        ("answer", 1, ("a", 0, 0, 2, 1, [3.0], [], True)),
        ("answer", 1, ("a", 0, 0, 1, 1, [4.0], [], True)),
        ("answer", 1, ("a", 0, 0, 3, 1, [5.0], [], True)),
    ],
)
async def test_any_sequence_of_changes_gives_the_bytes_that_python_gives(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, cap: int, operations: list[Operation]
) -> None:
    valkey.ask("FLUSHALL")
    store = RedisStore(parse(f"redis://{valkey.address}?timeout_ms=5000"), history_cap=cap)
    model = Model(cap)
    for name, clock, what in operations:
        for module in (features.record, features.redis_store):
            monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda clock=clock: clock))
        await apply(store, model, name, what)
        for user in "ab":
            assert valkey.ask("GET", of_user("u", user)) == model.values.get(user)
    await store.close()


async def apply(store: RedisStore, model: Model, name: str, what: object) -> None:
    match name, what:
        case "append", (list() as some, bool() as leave_out):
            assert await store.append(some, leave_out_excluded=leave_out) == model.append(some, leave_out)
        case "attributes", (str() as user, dict() as named):
            await store.set_attributes({user: named})
            if user not in model.excluded:
                old = model.get(user)
                model.put(user, old, with_attributes(old, named))
        case "answer", (user, which, off, version, at, vector, page, current):
            revision = model.revisions[max(-1 - which, -len(model.revisions))] + off
            vector, page = np.array(vector, np.float32), np.array(page, np.int64)
            answer = CachedAnswer(version, revision, at, vector, page, current)
            await store.put_answers({user: answer})
            old = model.get(user)
            model.put(user, old, with_answer(old, answer))
        case "forget", str() as user:
            assert await store.forget(user) == (user in model.values)
            model.values.pop(user, None)
            model.excluded.add(user)
        case _:
            raise AssertionError(name)


async def test_a_long_history_in_one_second_is_merged_as_python_does(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (features.record, features.redis_store):
        monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: 7))
    valkey.ask("FLUSHALL")
    store, record = (
        RedisStore(parse(f"redis://{valkey.address}?timeout_ms=5000"), history_cap=1024),
        EMPTY_RECORD,
    )
    for start in (0, 700, 300):
        some = [Event("a", f"i{n}", EventType.CLICK, 5 + n % 2) for n in range(start, start + 700)]
        record, new, known = with_events(record, some, 1024)
        assert await store.append(some) == Appended(new, known)
        assert valkey.ask("GET", of_user("u", "a")) == encode(record)
    await store.close()
