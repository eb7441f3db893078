"""Everything measured under one protocol, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from training.evaluate import Evaluation
from training.judged import Judged
from training.results import Result
from training.significance import Difference, differences
from training.slices import Slice, slices


@dataclass(frozen=True, slots=True)
class Against:
    """The model, as the mean over its seeds, against the baseline that is best by the metric compared."""

    baseline: str
    difference: Difference
    """Of the model and the baseline, in this order."""


@dataclass(frozen=True)  # no slots: cached_property needs a __dict__
class ProtocolReport:
    """The baselines and the seeds of the model, all on the test part."""

    protocol: str
    meaning: str
    """What trains and what is predicted, in a sentence."""
    baselines: Sequence[Evaluation]
    """At least one."""
    results: Sequence[Result]
    """One per seed; none if no model was trained for this protocol."""
    judged_baselines: Sequence[Judged]
    """One per baseline."""
    judged: Sequence[Judged]
    """One per result."""

    @property
    def users(self) -> int:
        """Users judged."""
        return self.baselines[0].users

    @property
    def cutoffs(self) -> list[int]:
        """The k of the metrics, in order."""
        return self.judged_baselines[0].cutoffs

    @property
    def cutoff(self) -> int:
        """The k that most is said about: 10, or the largest if a small catalogue or the configuration has
        no 10."""
        return 10 if 10 in self.cutoffs else self.cutoffs[-1]

    @property
    def model(self) -> str:
        """How the model is called; only if there are results."""
        return self.results[0].test.ranker

    def mean(self, metric: str) -> float:
        """Mean of a test metric over the seeds."""
        return fmean(result.test.metrics[metric] for result in self.results)

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None for a single one."""
        values = [result.test.metrics[metric] for result in self.results]
        return stdev(values) if len(values) > 1 else None

    @cached_property
    def slices(self) -> dict[str, list[Slice]]:
        """Each ranker's figures by kinds of users and targets; the model's are means over its seeds."""
        found = {judged.ranker: slices([judged]) for judged in self.judged_baselines}
        return found | ({self.model: slices(self.judged)} if self.results else {})

    @cached_property
    def significance(self) -> list[Against]:
        """HR@k and NDCG@k, k the `cutoff`; empty without a model."""
        if not self.results:
            return []
        against = []
        for metric in (f"hr@{self.cutoff}", f"ndcg@{self.cutoff}"):
            best = max(self.judged_baselines, key=lambda judged: float(judged.values[metric].mean()))
            against.append(Against(best.ranker, differences(self.judged, [best], [metric])[0]))
        return against
