"""Whether predicted probabilities are right: how well they separate, and whether what is predicted at 30 %
happens in 30 % of the cases.

    auc        Mann & Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than
               the Other", 1947; Hanley & McNeil, Radiology 1982, for its being the area under the ROC curve
    bins, ECE  Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, with bins of equal count as
               in Nguyen & O'Connor, "Posterior calibration and exploratory analysis for NLP models", EMNLP
               2015: probabilities of clicks crowd near 0, where bins of equal width would hold them all
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-7
"""Probabilities nearer to 0 or 1 count as this near in the log loss, which float32 could make infinite."""


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Examples of about the same predicted probability."""

    predicted: float
    """Mean of the predicted probabilities."""
    observed: float
    """Share of the examples that are positive."""
    count: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The figures of predicted probabilities; `dataclasses.asdict` makes JSON of it."""

    examples: int
    positives: int
    auc: float
    accuracy: float
    """Share of right answers at a threshold of 0.5."""
    log_loss: float
    """Nats per example."""
    expected_calibration_error: float
    bins: tuple[CalibrationBin, ...]
    """Least probable first."""

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Calibration:
        """What `dataclasses.asdict` gave, after JSON. Raises TypeError or KeyError for anything else."""
        return cls(**{**document, "bins": tuple(CalibrationBin(**one) for one in document["bins"])})


def calibrate(probabilities: NDArray[np.floating], labels: NDArray[Any]) -> Calibration:
    """All figures at once.

    Args:
        probabilities: float `[n]`, within 0 and 1.
        labels: bool or 0 and 1, `[n]`.

    Raises:
        ValueError: the arrays do not fit, hold other values, or there are no positives or no negatives.
    """
    predicted, positive = np.asarray(probabilities, np.float64), np.asarray(labels)
    if predicted.ndim != 1 or predicted.shape != positive.shape:
        raise ValueError(f"probabilities {predicted.shape} and labels {positive.shape}: want two [n]")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("probabilities must be within 0 and 1")
    if not np.isin(positive, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    positive = positive.astype(np.bool_)
    bins = calibration_bins(predicted, positive)
    return Calibration(
        examples=len(predicted),
        positives=int(positive.sum()),
        auc=auc(predicted, positive),
        accuracy=float(np.mean((predicted >= 0.5) == positive)),
        log_loss=log_loss(predicted, positive),
        expected_calibration_error=expected_calibration_error(bins),
        bins=bins,
    )


def auc(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative, equal scores counted half; any scores will do.

    Raises:
        ValueError: there are no positives or no negatives.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError("the AUC needs positives and negatives")
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # from 1; the mean rank among equals
    above = float(ranks[labels].sum()) - positives * (positives + 1) / 2
    return above / (positives * negatives)


def log_loss(probabilities: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Mean of −ln of the probability given to what happened, in nats."""
    given = np.where(labels, probabilities, 1.0 - probabilities)
    return float(-np.log(np.clip(given, _LEAST, 1.0 - _LEAST)).mean())


def calibration_bins(
    probabilities: NDArray[np.floating], labels: NDArray[np.bool_], bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Examples in order of probability, cut into bins of equal count, give or take one; fewer bins if there
    are fewer examples. Equal probabilities keep their order, and may fall on both sides of a cut."""
    order = np.argsort(probabilities, kind="stable")
    return tuple(
        CalibrationBin(float(probabilities[some].mean()), float(labels[some].mean()), len(some))
        for some in np.array_split(order, bins)
        if len(some)
    )


def expected_calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Mean distance of predicted and observed over the bins, weighted by their counts."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.predicted - one.observed) for one in bins) / max(1, total)
