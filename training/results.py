"""What a finished training run has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.checkpoint import Epoch
from training.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class Ranking:
    """The retrieval with the ranking network behind it."""

    validation: Evaluation
    test: Evaluation
    served: bool
    """Whether it is better than the retrieval alone by the validation NDCG@10, so that it is part of the
    model."""
    calibration: dict[str, Any] | None
    """`training.calibration.Calibration` as JSON, of its probabilities on the test; None if no target of the
    test is among the candidates."""
    seconds: float
    """Wall time of its training and judging."""


@dataclass(frozen=True, slots=True)
class Result:
    """A finished training run."""

    seed: int
    split: str
    fingerprint: str
    curve: tuple[Epoch, ...]
    best_epoch: int
    retrieval_validation: Evaluation
    retrieval_test: Evaluation
    """Of the retrieval alone."""
    ranking: Ranking | None
    """None if no ranking network was trained."""
    epsilon: float | None = None
    """What differentially private training has spent; None for any other."""

    @property
    def served(self) -> Ranking | None:
        """The ranking network, if it is part of the model."""
        return self.ranking if self.ranking is not None and self.ranking.served else None

    @property
    def validation(self) -> Evaluation:
        """Of the model as it is served."""
        return self.served.validation if self.served else self.retrieval_validation

    @property
    def test(self) -> Evaluation:
        """Of the model as it is served."""
        return self.served.test if self.served else self.retrieval_test

    @property
    def seconds(self) -> float:
        """Wall time of all epochs, and of the ranking network."""
        return sum(epoch.seconds for epoch in self.curve) + (self.ranking.seconds if self.ranking else 0.0)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all epochs, all threads."""
        return sum(epoch.cpu_seconds for epoch in self.curve)


def result_from_json(saved: dict[str, Any]) -> Result:
    """What `dataclasses.asdict` gave, after JSON. Raises TypeError or KeyError for anything else."""
    ranking = saved["ranking"]
    if ranking is not None:
        evaluations = {name: Evaluation(**ranking[name]) for name in ("validation", "test")}
        ranking = Ranking(**{**ranking, **evaluations})
    return Result(
        **{
            **saved,
            "curve": tuple(Epoch(**epoch) for epoch in saved["curve"]),
            "retrieval_validation": Evaluation(**saved["retrieval_validation"]),
            "retrieval_test": Evaluation(**saved["retrieval_test"]),
            "ranking": ranking,
        }
    )
