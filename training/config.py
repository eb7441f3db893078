"""The TOML configuration of a run: which columns mean what, how large the model is, how it is trained.

`load_config` is the only way in. Unknown keys are refused, and a wrong value is answered with the file, the
key and what would be right. Values never come from the environment: a run is described by its file alone.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from training.data_config import DataConfig, Table
from training.errors import TrainingError
from training.model_config import BehaviourConfig, IndexConfig, ModelConfig, RankerConfig


class PrivacyConfig(Table):
    """Differentially private training (DP-SGD). Off unless `noise` is above 0."""

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Standard deviation of the noise, as a multiple of `clip`. Above 0, `ranker.train` must be false."""
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Longest gradient of one user."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The chance of failure that epsilon is stated for; below one over the number of users."""


class TrainingConfig(Table):
    """How the model is trained."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """At most. The learning rate falls along a cosine that reaches zero after this many."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Windows in a batch, over all devices and workers."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW, after the warm-up and before the decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Batches over which the learning rate rises from zero in a straight line."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Epochs without a better validation NDCG@10 before training stops."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    sampled_softmax_threshold: Annotated[int, Field(ge=1)] = 20_000
    """Catalogues with more items than this are trained with sampled softmax."""
    sampled_negatives: Annotated[int, Field(ge=1)] = 2048
    mixed_precision: bool = False
    """Computes in float16 where that is safe; weights stay float32. For GPUs: a CPU is slower with it."""


_PRIVATE: Mapping[str, bool | str] = {
    "ranker.train": False,  # it is not trained privately
    "model.user_attributes": False,  # their vocabulary is what users have
    "data.unknown_items": "drop",  # the catalogue would be what users had
    "training.mixed_precision": False,  # gradients are clipped as they are
}
"""What private training cannot do with; see docs/decisions/0017-private-training.md."""


class EvaluationConfig(Table):
    """How a trained model is judged."""

    cutoffs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (5, 10, 20)
    """The k of HR@k, NDCG@k and their like."""
    global_split_quantile: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The global time split trains on events before this quantile of all times and tests on those after."""


class Config(Table):
    """One training run."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    ranker: Annotated[RankerConfig, Field(validate_default=True)] = RankerConfig()
    index: IndexConfig = IndexConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    training: TrainingConfig = TrainingConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("ranker")
    @classmethod
    def _ranks_a_page(cls, ranker: RankerConfig, info: ValidationInfo) -> RankerConfig:
        # The network reads each candidate's share among all of them: in service they must be as many.
        page = info.data["model"].page_size if "model" in info.data else 0
        if ranker.train and ranker.candidates < page:
            raise ValueError(f"candidates must be at least model.page_size, {page}, not {ranker.candidates}")
        return ranker

    @field_validator("privacy")
    @classmethod
    def _leaves_nothing_out(cls, privacy: PrivacyConfig, info: ValidationInfo) -> PrivacyConfig:
        if not privacy.noise:
            return privacy
        for key, wanted in _PRIVATE.items():
            table, name = key.split(".")
            if table in info.data and getattr(info.data[table], name) != wanted:
                raise ValueError(f"with noise, {key} must be {json.dumps(wanted)}")
        return privacy


def load_config(path: Path) -> Config:
    """Reads and checks a TOML file.

    Raises `TrainingError` if it is missing, not TOML, or holds an unknown key or a wrong value.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise TrainingError(f"configuration {path} cannot be read: {_cause(exc)}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise TrainingError(f"configuration {path} is not valid TOML: {exc}") from exc
    try:
        return Config.model_validate(document, context={"folder": path.parent})
    except ValidationError as exc:
        raise TrainingError(_sentence(path, exc)) from exc


def _cause(exc: Exception) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else "it is not UTF-8 text"


def _sentence(path: Path, exc: ValidationError) -> str:
    first, *others = exc.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        problem = "is not a known key"
    elif first["type"] == "missing":
        problem = "is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        problem = f"is wrong: {message[:1].lower()}{message[1:]} (got {first['input']!r:.100})"
    more = f", and {len(others)} more such faults" if others else ""
    return f"configuration {path}: {key} {problem}{more}"
