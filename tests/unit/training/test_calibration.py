from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from training.calibration import (
    Calibration,
    CalibrationBin,
    auc,
    calibrate,
    calibration_bins,
    expected_calibration_error,
    log_loss,
)


def test_the_auc_counts_pairs_and_ties_by_half():
    scores, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    assert auc(scores, labels) == pytest.approx(3.5 / 4)  # 0.4 > 0.1, 0.4 = 0.4, 0.8 above both
    assert auc(-scores, labels) == pytest.approx(0.5 / 4)
    assert auc(np.zeros(4), labels) == pytest.approx(0.5)


def test_the_auc_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(4)
    scores, labels = generator.integers(6, size=60) / 6, generator.random(60) < 0.4
    pairs = scores[labels][:, None] - scores[~labels]
    assert auc(scores, labels) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_the_log_loss_is_the_mean_surprise_and_stays_finite():
    assert log_loss(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx(
        (math.log(2) + math.log(4 / 3)) / 2
    )
    assert log_loss(np.array([0.0]), np.array([True])) == pytest.approx(math.log(1e7))


def test_bins_are_of_equal_count_in_order_of_probability():
    probabilities = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    labels = np.array([True, False, False, True, True])
    assert calibration_bins(probabilities, labels, bins=2) == (
        CalibrationBin(pytest.approx(0.3), pytest.approx(1 / 3), 3),
        CalibrationBin(pytest.approx(0.8), pytest.approx(1.0), 2),
    )
    assert [one.count for one in calibration_bins(probabilities, labels)] == [1] * 5


def test_the_calibration_error_weighs_bins_by_their_counts():
    bins = (CalibrationBin(0.3, 0.5, 3), CalibrationBin(0.8, 0.4, 1))
    assert expected_calibration_error(bins) == pytest.approx((3 * 0.2 + 0.4) / 4)


def test_probabilities_that_come_true_are_calibrated_and_halved_ones_are_not():
    generator = np.random.default_rng(2)
    probabilities = generator.random(20_000)
    labels = generator.random(20_000) < probabilities
    good, bad = calibrate(probabilities, labels), calibrate(probabilities / 2, labels.astype(int))
    assert good.expected_calibration_error < 0.02
    assert bad.expected_calibration_error == pytest.approx(0.25, abs=0.02)
    assert good.auc == pytest.approx(bad.auc)
    assert good.accuracy == pytest.approx(0.75, abs=0.02)
    assert bad.accuracy == pytest.approx(0.5, abs=0.02)
    assert (good.examples, good.positives, len(good.bins)) == (20_000, labels.sum(), 10)


def test_a_calibration_survives_json():
    found = calibrate(np.array([0.2, 0.7, 0.4]), np.array([0, 1, 1]))
    assert Calibration.from_json(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize(
    ("probabilities", "labels", "fault"),
    [
        ([0.2, 0.4], [1], "want two"),
        ([0.2, 1.4], [0, 1], "within 0 and 1"),
        ([0.2, math.nan], [0, 1], "within 0 and 1"),
        ([0.2, 0.4], [0, 2], "0 or 1"),
        ([0.2, 0.4], [1, 1], "positives and negatives"),
    ],
)
def test_what_is_no_pair_of_probabilities_and_labels_is_refused(probabilities, labels, fault):
    with pytest.raises(ValueError, match=fault):
        calibrate(np.array(probabilities), np.array(labels))
