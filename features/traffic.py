"""Which version a user's request goes to: the part of a rollout's record that every gateway obeys.

The record is one document in the online store (`document_name`); `rollout.state` writes it. Cohorts are
salted hashes of the user id: a user stays where they are from call to call, on every gateway, and those in a
small share are in every larger one.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

STABLE, CANARY, PINNED = "stable", "canary", "pinned"
"""Cohorts that a response can name, beside those of an experiment."""

_BITS = 53
"""Of a digest: a float holds no more, and would round the last steps up to 1."""


class TrafficError(Exception):
    """A document that is no rollout record of a known form."""


Version = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Experiment(BaseModel):
    """Two versions that users are split between for as long as it runs."""

    model_config = ConfigDict(frozen=True)

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
    control: Version
    treatment: Version
    percent: Percent
    """Share of users in the treatment arm; all others are in the control arm."""

    @property
    def arms(self) -> tuple[str, str]:
        """The cohort names of control and treatment."""
        return f"{self.name}/control", f"{self.name}/treatment"


class Traffic(BaseModel):
    """What gateways need to know of a rollout. They pass over what else is in the record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stable: Version
    candidate: Version | None = None
    percent: Percent = 0.0
    """Share of users whose requests go to the candidate."""
    shadow_percent: Percent = 0.0
    """Share of the stable version's requests that the candidate answers too, unseen."""
    salt: str
    experiment: Experiment | None = None

    @property
    def answering(self) -> frozenset[tuple[int, str]]:
        """Versions and cohorts that pages are meant to name; the stable version stands in for the others."""
        if (experiment := self.experiment) is not None:
            control, treatment = experiment.arms
            meant = {(experiment.control, control), (experiment.treatment, treatment)}
            return frozenset(meant | {(self.stable, arm) for arm in experiment.arms})
        if self.candidate is None:
            return frozenset({(self.stable, STABLE)})
        return frozenset({(self.stable, STABLE), (self.stable, CANARY), (self.candidate, CANARY)})

    def choose(self, user_id: str) -> tuple[int, str]:
        """The version for a user, and the name of the cohort that they are in."""
        if (experiment := self.experiment) is not None:
            control, treatment = experiment.arms
            if bucket(f"{self.salt}/{experiment.name}", user_id) * 100 < experiment.percent:
                return experiment.treatment, treatment
            return experiment.control, control
        if self.candidate is not None and bucket(self.salt, user_id) * 100 < self.percent:
            return self.candidate, CANARY
        return self.stable, STABLE


def bucket(salt: str, user_id: str) -> float:
    """Where a user falls in [0, 1), uniformly: BLAKE2b keyed by the salt, over the id's NFC form."""
    text = user_id if user_id.isascii() else unicodedata.normalize("NFC", user_id)
    digest = blake2b(text.encode(), digest_size=8, key=_key(salt)).digest()
    return (int.from_bytes(digest, "little") >> (64 - _BITS)) / (1 << _BITS)


@lru_cache
def _key(salt: str) -> bytes:
    return blake2b(salt.encode(), digest_size=32).digest()


def document_name(model_name: str) -> str:
    """The name of the rollout record of a model in the online store."""
    return f"rollout/{model_name}"


def parse_traffic(value: bytes) -> Traffic:
    """The traffic part of a rollout record.

    Raises:
        TrafficError: it is none, or one of a later release.
    """
    try:
        return Traffic.model_validate_json(value)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the record"
        raise TrafficError(f"the rollout record: {field}: {problem['msg']}") from error
