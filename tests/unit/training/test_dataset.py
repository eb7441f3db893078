from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import dataset
from training.dataset import cut_windows, open_prepared, training_windows
from training.errors import TrainingError
from training.splits import LeaveOneOut


def test_histories_are_whole_wherever_the_record_batches_end(make_prepared, monkeypatch):
    log = {f"u{u}": [(f"i{i}", 10 * i) for i in range(u, u + n)] for u, n in enumerate((1, 7, 2, 9, 4))}
    prepared = make_prepared(log)
    for rows in (1, 2, 3, 5, 100):
        monkeypatch.setattr(dataset, "_ROWS_PER_READ", rows)
        got = {
            h.user_id: [(prepared.items[i - 1].item_id, t) for i, t in zip(h.items, h.times, strict=True)]
            for h in prepared.histories()
        }
        assert got == log


def test_events_of_one_second_are_not_in_the_order_of_their_ids_but_always_in_the_same(make_prepared):
    prepared = make_prepared({f"u{u}": [(f"i{i:02}", 5 + i // 20) for i in range(40)] for u in range(2)})
    first, second = prepared.histories()
    assert first.times.tolist() == sorted(first.times.tolist())
    assert first.items.tolist() != sorted(first.items.tolist())
    assert first.items.tolist() != second.items.tolist()
    assert sorted(first.items[:20].tolist()) == list(range(1, 21))
    assert [h.items.tolist() for h in prepared.histories()] == [first.items.tolist(), second.items.tolist()]


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
    def epoch(seed):
        return np.concatenate([b.numpy() for b in training_windows(cycles, LeaveOneOut(), 8, 16, seed)])

    assert (epoch(1) == epoch(1)).all()
    assert epoch(1).shape[1] == 9
    assert not np.array_equal(epoch(1), epoch(2))


def test_training_windows_hold_nothing_that_is_held_out(cycles):
    held_out = {h.user_id: h.items[-2:].tolist() for h in cycles.histories()}
    expected = sum(len(h) - 3 for h in cycles.histories())
    windows = np.concatenate([b.numpy() for b in training_windows(cycles, LeaveOneOut(), 30, 16, 1)])
    assert (windows[:, :-1] > 0).sum() == expected
    assert len(windows) == len(held_out)


def test_a_folder_without_prepared_data_is_said_in_a_sentence(tmp_path: Path):
    with pytest.raises(TrainingError, match="no prepared data here"):
        open_prepared(tmp_path)


def test_an_event_on_an_item_that_is_not_in_the_catalogue_is_named(make_prepared):
    prepared = make_prepared({"u": [("a", 1), ("b", 2)]}, {"a": []})
    with pytest.raises(TrainingError, match="'b'"):
        list(prepared.histories())
