from __future__ import annotations

import numpy as np
import pytest

from tests.unit.training.judging import judged
from training.errors import TrainingError
from training.significance import differences, paired_bootstrap, per_user


def test_a_ranker_does_not_differ_from_itself():
    one = judged([[1], [0], [3], [0]] * 50, users=range(200))
    for found in differences([one], [one], ["hr@10", "ndcg@10"]):
        assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
        assert not found.significant


def test_a_clear_difference_is_shown_and_its_sign_is_that_of_the_first():
    good, bad = judged([[1]] * 60 + [[0]] * 40), judged([[1]] * 30 + [[0]] * 70)
    found, *_ = differences([good], [bad], ["hr@10"])
    assert (found.first, found.second, found.difference) == pytest.approx((0.6, 0.3, 0.3))
    assert found.p < 0.01
    assert 0.15 < found.low < 0.3 < found.high < 0.45
    assert found.users == 100
    back, *_ = differences([bad], [good], ["hr@10"])
    assert back.difference == pytest.approx(-0.3)
    assert back.p < 0.01
    assert back.high < 0


def test_equal_sums_of_other_users_are_no_difference():
    found, *_ = differences([judged([[1]] * 50 + [[0]] * 50)], [judged([[0]] * 50 + [[1]] * 50)], ["hr@10"])
    assert found.difference == 0.0
    assert found.p == 1.0
    assert found.low < -0.1 < 0.1 < found.high


def test_the_interval_is_that_of_the_normal_approximation_for_many_users():
    values = np.random.default_rng(3).normal(0.02, 1.0, 2000)
    low, high, p = paired_bootstrap(values)
    error = values.std() / np.sqrt(2000)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    z = abs(values.mean()) / error
    assert 0.02 < p < 0.98  # a p that says something
    assert p == pytest.approx(_two_sided(z), abs=0.02)


def _two_sided(z):
    """The p of a normal deviate, by drawing."""
    return float((np.abs(np.random.default_rng(1).normal(size=200_000)) >= z).mean())


def test_a_seed_gives_the_same_figures_again_and_another_seed_about_the_same():
    values = np.random.default_rng(3).integers(-1, 2, 300).astype(float)
    assert paired_bootstrap(values) == paired_bootstrap(values)
    assert paired_bootstrap(values, seed=1) != paired_bootstrap(values, seed=2)
    assert paired_bootstrap(values, seed=1) == pytest.approx(paired_bootstrap(values, seed=2), abs=0.03)


def test_the_resamples_drawn_at_once_do_not_change_what_is_found(monkeypatch):
    values = np.random.default_rng(3).normal(0.1, 1.0, 100)
    whole = paired_bootstrap(values, resamples=999)
    monkeypatch.setattr("training.significance._COUNTS_AT_ONCE", 700)
    assert paired_bootstrap(values, resamples=999) == pytest.approx(whole)


def test_the_p_is_never_zero_and_a_difference_that_all_share_is_certain():
    assert paired_bootstrap(np.full(50, 0.25), resamples=99) == pytest.approx((0.25, 0.25, 1 / 100))


def test_users_are_matched_by_their_hash_and_averaged_over_the_seeds():
    first = judged([[1], [0], [2]], users=[30, 10, 20])
    second = judged([[0], [4], [1]], users=[10, 20, 30])
    assert per_user([first, second], "mrr@10").tolist() == pytest.approx([0, (1 / 2 + 1 / 4) / 2, 1])
    found, *_ = differences([first], [judged([[0], [2], [1]], users=[10, 20, 30])], ["mrr@10"])
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"data": "0" * 64}, "on different data"),
        ({"protocol": "GlobalTime(validation_time=1, test_time=2) test"}, "under different protocols"),
        ({"users": [1, 3]}, "by different users"),
    ],
)
def test_what_was_judged_otherwise_is_refused(other, fault):
    known = judged([[1], [0]])
    for sides in (([known], [judged([[1], [0]], **other)]), ([known, judged([[1], [0]], **other)], [known])):
        with pytest.raises(TrainingError, match=fault):
            differences(*sides, ["hr@10"])


def test_a_metric_that_one_was_not_judged_by_is_named():
    with pytest.raises(TrainingError, match=r"not judged by hr@20, only by hr@5"):
        differences([judged([[1]])], [judged([[1]])], ["hr@20"])


def test_users_judged_by_other_events_are_refused_with_how_many_and_what_to_do():
    known = judged([[1], [0], [2]], users=[30, 10, 20], asked=[3, 1, 2])
    same = judged([[1], [0], [2]], users=[10, 20, 30], asked=[1, 2, 3])
    assert differences([known], [same], ["hr@10"])[0].users == 3
    other = judged([[1], [0], [2]], users=[10, 20, 30], asked=[1, 9, 3])
    with pytest.raises(
        TrainingError, match=r"by different events: 1 of 3 users .*; train both with the same"
    ):
        differences([known], [other], ["hr@10"])


def test_a_file_that_does_not_say_by_what_users_were_judged_compares_and_hides_no_other():
    old, first, second = judged([[1]]), judged([[1]], asked=[1]), judged([[1]], asked=[2])
    for sides in (([old], [first]), ([first], [old]), ([old], [old])):
        assert differences(*sides, ["hr@10"])[0].difference == 0
    with pytest.raises(TrainingError, match="by different events"):
        differences([old, first], [second], ["hr@10"])
