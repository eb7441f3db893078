"""The processes that train one model together, as `TF_CONFIG` tells each of them.

TensorFlow's own form, which schedulers such as Kubeflow set, with the same cluster for every worker and a
task of its own:

    {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}

The first worker, or the one whose type is `chief`, judges the model and writes; the others help to train it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import TrainingError

Address = Annotated[str, Field(pattern=r"^\S+:\d{1,5}$")]


@dataclass(frozen=True, slots=True)
class Workers:
    """All workers, and which of them this process is."""

    addresses: tuple[str, ...] = ()
    """`host:port` of each, the chief's first; empty for a process that trains alone."""
    index: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return max(1, len(self.addresses))

    @property
    def chief(self) -> bool:
        """Whether this one judges and writes."""
        return self.index == 0


ALONE = Workers()


class _Cluster(BaseModel):
    model_config = ConfigDict(extra="forbid")

    chief: Annotated[list[Address], Field(max_length=1)] = []
    worker: list[Address] = []


class _Task(BaseModel):
    type: Literal["chief", "worker"]
    index: Annotated[int, Field(ge=0)]


class _TfConfig(BaseModel):
    cluster: _Cluster
    task: _Task

    @model_validator(mode="after")
    def _is_one_of_the_cluster(self) -> _TfConfig:
        there = len(getattr(self.cluster, self.task.type))
        if self.task.index >= there:
            raise ValueError(
                f"the task is {self.task.type} {self.task.index}, and the cluster has {there} of that type"
            )
        addresses = [*self.cluster.chief, *self.cluster.worker]
        if len(set(addresses)) < len(addresses):
            raise ValueError("two workers of the cluster have one address")
        return self


def read_workers(tf_config: str | None) -> Workers:
    """What `TF_CONFIG` says; `ALONE` if it is not set, empty, or names one worker only.

    Raises:
        TrainingError: it is not valid.
    """
    if not tf_config:
        return ALONE
    try:
        given = _TfConfig.model_validate_json(tf_config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise TrainingError(f"TF_CONFIG is wrong: {f'{key}: ' if key else ''}{message}") from error
    chiefs = given.cluster.chief
    addresses = (*chiefs, *given.cluster.worker)
    before = len(chiefs) if given.task.type == "worker" else 0
    return Workers(addresses, before + given.task.index) if len(addresses) > 1 else ALONE
