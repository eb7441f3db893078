"""Whether one ranker is better than another, or only luckier with the users it was judged by: the paired
bootstrap.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993: the percentile interval (chapter 13) and the
achieved significance level of a mean, from the sample shifted to where the hypothesis holds (chapter 16).
Sakai, "Evaluating Evaluation Metrics based on the Bootstrap", SIGIR 2006, has it for the metrics of ranked
lists; he divides the mean by its standard error, which fails where all users differ by the same.

The users are what is drawn again, so it says nothing of what other seeds would give: for that, average the
per-user values of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.judged import Judged

RESAMPLES = 10_000
_SEED = 1
_COUNTS_AT_ONCE = 2**22
_EQUAL = 1e-12


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the first of two rankers is by one metric."""

    metric: str
    users: int
    first: float
    second: float
    difference: float
    """`first` − `second`."""
    low: float
    high: float
    """The 95 % interval of the difference."""
    p: float
    """Two-sided: the chance of a difference at least this large between equals."""

    @property
    def significant(self) -> bool:
        """Whether the difference is shown at the usual level of 5 %."""
        return self.p < 0.05


def differences(
    first: Sequence[Judged], second: Sequence[Judged], metrics: Sequence[str]
) -> list[Difference]:
    """The difference of two rankers, or of the means over the seeds of two models, by each metric.

    Raises:
        TrainingError: they were not judged by the same users, data and protocol, or a metric is missing.
    """
    refuse_others([*first, *second])
    return [_difference(metric, per_user(first, metric), per_user(second, metric)) for metric in metrics]


def refuse_others(rankers: Sequence[Judged]) -> None:
    """Raises TrainingError unless all were judged by the same users of the same data under one protocol, and
    each user by the same events, as far as the files say by which."""
    known = rankers[0]
    users = np.unique(known.users)
    for other in rankers[1:]:
        if other.data != known.data:
            raise TrainingError(
                f"these were judged on different data ({known.data[:12]} and {other.data[:12]}), "
                "and figures compare only on the same"
            )
        if other.protocol != known.protocol:
            raise TrainingError(
                f"these were judged under different protocols ({known.protocol} and {other.protocol}), "
                "and figures compare only under the same"
            )
        if not np.array_equal(np.unique(other.users), users):
            raise TrainingError(
                f"these were judged by different users ({len(known.users):,} and {len(other.users):,}), "
                "and figures compare only by the same"
            )
    asked = [found for judged in rankers if (found := _asked(judged)) is not None]
    for one in asked[1:]:
        if others := int(np.count_nonzero(one != asked[0])):
            raise TrainingError(
                f"these were judged by different events: {others:,} of {len(one):,} users have other targets "
                "or another history before them, as where [behaviour] leaves out other events; train both "
                "with the same behaviour.event_weights and behaviour.consumes to compare them"
            )


def _asked(judged: Judged) -> NDArray[np.int64] | None:
    """`Judged.asked` in order of the user hash."""
    return None if judged.asked is None else judged.asked[np.argsort(judged.users, kind="stable")]


def per_user(rankers: Sequence[Judged], metric: str) -> NDArray[np.float64]:
    """The mean of a metric over the rankers for each user, float64 `[B]`, in order of the user hash.

    Raises:
        TrainingError: one was not judged by this metric.
    """
    for judged in rankers:
        if metric not in judged.values:
            raise TrainingError(
                f"{judged.ranker} was not judged by {metric}, only by {', '.join(judged.values)}"
            )
    users, which = np.unique(np.concatenate([judged.users for judged in rankers]), return_inverse=True)
    values = np.concatenate([judged.values[metric] for judged in rankers])
    sums = np.bincount(which, weights=values, minlength=len(users))
    return np.asarray(sums / np.bincount(which, minlength=len(users)), np.float64)


def paired_bootstrap(
    differences: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = _SEED
) -> tuple[float, float, float]:
    """The 95 % interval of the mean of per-user differences, float64 `[B]`, B ≥ 1, and the two-sided p.

    The same seed gives the same figures. The p is never 0: the sample itself counts as one of its resamples.
    """
    distinct, counts = np.unique(differences, return_counts=True)
    users, mean = len(differences), float(differences.mean())
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    # Users who differ by the same stand for one another, so it is enough to draw how often each distinct
    # difference comes: exact, and quick for a million users, most of whom differ by 0.
    rows = max(1, _COUNTS_AT_ONCE // len(distinct))
    for start in range(0, resamples, rows):
        drawn = generator.multinomial(users, counts / users, size=min(rows, resamples - start))
        means[start : start + rows] = drawn @ distinct / users
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    beyond = np.count_nonzero(np.abs(means - mean) >= abs(mean) - _EQUAL)
    return low, high, (1 + int(beyond)) / (1 + resamples)


def _difference(metric: str, first: NDArray[np.float64], second: NDArray[np.float64]) -> Difference:
    low, high, p = paired_bootstrap(first - second)
    return Difference(
        metric=metric,
        users=len(first),
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(first.mean() - second.mean()),
        low=low,
        high=high,
        p=p,
    )
