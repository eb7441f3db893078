"""Training windows: nothing twice, nothing held out, everything beside its time and type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from features.schema import EventType, feature_key
from training.dataset import open_prepared
from training.splits import LeaveOneOut
from training.user_features import UserVocabulary, no_attributes
from training.windows import cut_windows, training_windows


def windows(prepared, seed=1, history=8, vocabulary=None):
    batches = training_windows(
        prepared,
        LeaveOneOut(),
        vocabulary or no_attributes(),
        history=history,
        batch_size=16,
        seed=seed,
    )
    batches = list(batches.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@given(length=st.integers(2, 60), width=st.integers(2, 20))
def test_every_event_but_the_first_is_a_target_once_with_what_came_before_it(length, width):
    items = np.arange(1, length + 1, dtype=np.int32)
    targets = []
    for window in cut_windows(items, width):
        real = window[window > 0]
        assert window.tolist() == [0] * (width - len(real)) + list(range(real[0], real[-1] + 1))
        targets += real[1:].tolist()
    assert sorted(targets) == list(range(2, length + 1))


def test_windows_of_a_seed_come_in_the_same_order_and_of_another_seed_in_another(cycles):
    first, again, other = (windows(cycles, seed)["items"] for seed in (1, 1, 2))
    assert (first == again).all()
    assert first.shape[1] == 9
    assert not np.array_equal(first, other)


def test_windows_hold_nothing_that_is_held_out(cycles):
    expected = sum(len(h) - 3 for h in cycles.histories())
    items = windows(cycles, history=30)["items"]
    assert (items[:, :-1] > 0).sum() == expected
    assert len(items) == len(list(cycles.histories()))


def test_times_and_types_stand_beside_their_events(cycles):
    got = windows(cycles)
    first = {h.user_id: (h.items[0], h.times[0]) for h in cycles.histories()}
    starts = {item: time - (item - 1) for item, time in first.values()}
    assert starts  # items go round in order, one a second: the difference of neighbours is one
    real = got["items"] > 0
    assert (got["types"][real] == EventType.RATE).all()
    assert (got["types"][~real] == 0).all()
    assert (got["times"][~real] == 0).all()
    both = real[:, 1:] & real[:, :-1]
    assert (np.diff(got["times"], axis=1)[both] == 1).all()


def test_what_is_held_out_does_not_depend_on_the_order_drawn_for_one_second(make_prepared):
    # All events of a user happen at once: any of them might be the newest.
    prepared = make_prepared({"u": [(f"i{i:02}", 7) for i in range(12)]})
    [user] = prepared.histories()
    for seed in range(1, 20):
        trained_on = windows(prepared, seed, history=12)["items"]
        assert set(trained_on.ravel().tolist()) - {0} == set(user.items[:-2].tolist())


def test_each_window_has_the_attributes_of_its_user(make_prepared):
    log = {"u1": [("a", t) for t in range(9)], "u2": [("b", t) for t in range(9)]}
    prepared = make_prepared(log)
    users = pa.table({"user_id": ["u1", "u2"], "country": ["DE", None]})
    pq.write_table(users, prepared.folder / "users.parquet")
    vocabulary = UserVocabulary(np.array([feature_key("country", "DE")]), np.array([7], np.int32), 1)
    got = windows(open_prepared(prepared.folder), history=3, vocabulary=vocabulary)
    # Item "a" is 1, and only the user who took it is from a known country.
    assert dict(zip(got["items"][:, -1].tolist(), got["features"][:, 0].tolist(), strict=True)) == {
        1: 7,
        2: 0,
    }
