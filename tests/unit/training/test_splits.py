from __future__ import annotations

import numpy as np

from training.dataset import History
from training.splits import GlobalTime, LeaveOneOut, global_time


def history(items, times=None):
    times = range(len(items)) if times is None else times
    return History("u", np.array(items, np.int32), np.array(times, np.int64), np.ones(len(items), np.uint8))


def test_leave_one_out_trains_on_all_but_two_and_predicts_those_two():
    split, user = LeaveOneOut(), history([4, 7, 2, 9])
    assert split.training_part(user).items.tolist() == [4, 7]
    validation, test = split.case(user, "validation"), split.case(user, "test")
    assert (validation.known.items.tolist(), validation.targets.tolist()) == ([4, 7], [2])
    assert (test.known.items.tolist(), test.targets.tolist()) == ([4, 7, 2], [9])


def test_the_request_is_at_the_time_of_the_first_event_on_a_target():
    user = history([4, 7, 2, 9], [10, 20, 30, 40])
    assert LeaveOneOut().case(user, "validation").time == 30
    assert LeaveOneOut().case(user, "test").time == 40
    # The event at 40 repeats an item of the past, so the first to predict is that at 50.
    split = GlobalTime(validation_time=15, test_time=35)
    assert split.case(history([4, 7, 2, 7, 9, 1], [10, 20, 30, 40, 50, 60]), "test").time == 50
    assert split.case(history([4, 7, 2, 7, 9, 1], [10, 20, 30, 40, 50, 60]), "validation").time == 20


def test_leave_one_out_only_trains_on_a_user_with_two_events():
    split, user = LeaveOneOut(), history([4, 7])
    assert split.training_part(user).items.tolist() == [4, 7]
    assert split.case(user, "test") is None


def test_an_item_the_user_had_before_is_no_target():
    assert LeaveOneOut().case(history([4, 7, 2, 7]), "test") is None
    case = GlobalTime(validation_time=1, test_time=2).case(history([4, 7, 2, 7, 9, 9]), "test")
    assert case.targets.tolist() == [2, 9]


def test_the_global_split_lets_nothing_later_than_its_moment_into_training():
    split, user = GlobalTime(validation_time=20, test_time=30), history([1, 2, 3, 4, 5], [10, 19, 20, 30, 31])
    assert split.training_part(user).items.tolist() == [1, 2]
    validation, test = split.case(user, "validation"), split.case(user, "test")
    assert (validation.known.items.tolist(), validation.targets.tolist()) == ([1, 2], [3])
    assert (test.known.items.tolist(), test.targets.tolist()) == ([1, 2, 3], [4, 5])


def test_the_global_split_judges_no_user_without_a_past_or_a_future():
    split = GlobalTime(validation_time=20, test_time=30)
    assert split.case(history([1, 2], [40, 50]), "test") is None
    assert split.case(history([1, 2], [1, 2]), "test") is None


def test_the_global_split_cuts_at_the_quantile_of_all_times(make_prepared):
    log = {f"u{u}": [(f"i{i}", 1000 * u + i) for i in range(50)] for u in range(20)}
    prepared = make_prepared(log)
    split = global_time(prepared.events_path, 0.9)
    times = np.array([t for events in log.values() for _, t in events])
    assert abs((times < split.test_time).mean() - 0.9) < 0.002
    assert abs((times < split.validation_time).mean() - 0.81) < 0.002
