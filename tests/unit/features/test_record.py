from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.record import (
    EMPTY_RECORD,
    CachedAnswer,
    Event,
    RecordError,
    UserRecord,
    decode,
    encode,
    with_answer,
    with_attributes,
    with_events,
)
from features.schema import EventType, item_key

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)


@st.composite
def records(draw: st.DrawFn) -> UserRecord:
    count = draw(st.integers(0, 12))
    of = lambda values: draw(st.lists(values, min_size=count, max_size=count))  # noqa: E731 - reads as a word
    answer = None
    if draw(st.booleans()):
        answer = CachedAnswer(
            draw(st.integers(1, 2**40)),
            draw(INT64),
            draw(INT64),
            np.array(draw(st.lists(FLOAT32, min_size=1, max_size=5)), np.float32),
            np.array(draw(st.lists(INT64, max_size=5)), np.int64),
            draw(st.booleans()),
            draw(st.integers(0, 2**62)),
        )
    record = UserRecord(
        np.array(of(INT64), np.int64),
        np.array(of(INT64), np.int64),
        np.array(of(st.integers(1, 10)), np.uint8),
        np.array(of(FLOAT32), np.float32),
        b"",
        draw(st.integers(0, 2**62)),
        answer,
        draw(st.integers(0, 2**62)),
    )
    return with_attributes(
        record, draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    )


@given(records())
def test_a_record_survives_encoding_whole(record: UserRecord) -> None:
    again = decode(encode(record))
    for name in ("keys", "times", "types", "weights"):
        assert getattr(again, name).tolist() == getattr(record, name).tolist()
    assert again.attributes == record.attributes
    assert again.revision == record.revision
    assert again.born == record.born
    assert (again.answer is None) == (record.answer is None)
    if again.answer is not None and record.answer is not None:
        assert again.answer.vector.tolist() == record.answer.vector.tolist()
        assert again.answer.page_keys.tolist() == record.answer.page_keys.tolist()
        assert again.answer.version == record.answer.version
        assert again.answer.page_is_current is record.answer.page_is_current
        assert again.answer.revision == record.answer.revision
        assert again.answer.computed_at == record.answer.computed_at
        assert again.answer.behind_since == record.answer.behind_since


@given(records(), st.data())
def test_a_record_cut_short_is_refused(record: UserRecord, data: st.DataObject) -> None:
    value = encode(record)
    with pytest.raises(RecordError):
        decode(value[: data.draw(st.integers(0, len(value) - 1))])


def test_bytes_of_another_format_are_refused() -> None:
    value = bytearray(encode(EMPTY_RECORD))
    value[2] = 99
    with pytest.raises(RecordError, match="99"):
        decode(bytes(value))


def test_a_record_of_the_release_before_is_read() -> None:
    """Its header lacks `born` and `behind_since`, which are the last 16 bytes of today's."""
    record = with_events(EMPTY_RECORD, clicks(("x", 5)), 10).record
    kept = CachedAnswer(3, record.revision, 1000, np.ones(2, np.float32), np.array([7]), page_is_current=True)
    for now, behind_since in (
        (with_answer(record, kept), 0),
        (with_events(with_answer(record, kept), clicks(("y", 6)), 10).record, 1000 * 10**9),
    ):
        value = encode(now)
        earlier = b"RU\x02\x00" + value[4:52] + value[68:]
        again = decode(earlier)
        assert again.keys.tolist() == now.keys.tolist()
        assert again.answer is not None
        assert again.answer.vector.tolist() == [1.0, 1.0]
        assert again.answer.behind_since == behind_since
        assert again.born == record.revision
        assert decode(encode(again)).born == record.revision


def clicks(*events: tuple[str, int]) -> list[Event]:
    return [Event("u", item, EventType.CLICK, time) for item, time in events]


def test_a_change_of_the_history_changes_the_revision_and_a_repeat_does_not() -> None:
    once = with_events(EMPTY_RECORD, clicks(("x", 5)), 10)
    twice = with_events(once.record, clicks(("x", 5)), 10)
    assert (twice.recorded, twice.duplicates) == (0, 1)
    assert twice.record is once.record
    assert once.record.revision != EMPTY_RECORD.revision
    more = with_events(once.record, clicks(("y", 5)), 10)
    assert more.record.revision > once.record.revision


def test_events_of_one_second_keep_the_order_in_which_they_came() -> None:
    record = with_events(EMPTY_RECORD, clicks(("b", 5), ("c", 5), ("a", 5)), 10).record
    assert record.keys.tolist() == [item_key(item) for item in "bca"]


def test_an_event_too_old_for_a_full_history_changes_nothing_and_is_not_counted() -> None:
    full = with_events(EMPTY_RECORD, clicks(("a", 10), ("b", 20), ("c", 30)), 2)
    assert (full.recorded, full.duplicates) == (2, 0)
    again = with_events(full.record, clicks(("a", 10), ("b", 20)), 2)
    assert (again.recorded, again.duplicates) == (0, 1)
    assert again.record is full.record
