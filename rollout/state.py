"""A rollout's record: where it stands, and how it may go on from there.

One document of the online store holds it, and every change is a compare-and-set: what two operators and the
driver do at once happens one after the other, each seeing what the one before it did. `features.traffic` is
the part of it that gateways obey. The functions here are pure; `rollout.records` reads and writes.

    IDLE → CHECK → LOAD → PROVE → SHADOW → CANARY → RETIRE → IDLE
    anything from CHECK to RETIRE → ROLLED_BACK → (discard) IDLE
    PROVE → EXPERIMENT → IDLE
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from features.traffic import Experiment, Percent, Traffic
from rollout.errors import NotPossible

_MOST_HISTORY = 100
_LONGEST_REASON = 600


class Phase(StrEnum):
    """Where a rollout stands; the .proto says what each means."""

    IDLE = "idle"
    CHECK = "check"
    LOAD = "load"
    PROVE = "prove"
    SHADOW = "shadow"
    CANARY = "canary"
    RETIRE = "retire"
    ROLLED_BACK = "rolled_back"
    EXPERIMENT = "experiment"


UNDER_WAY = frozenset({Phase.CHECK, Phase.LOAD, Phase.PROVE, Phase.SHADOW, Phase.CANARY})
LIVE = frozenset({Phase.SHADOW, Phase.CANARY, Phase.EXPERIMENT})
"""The candidate answers requests, seen or unseen, and is judged."""


class Bounds(BaseModel):
    """What a candidate is held to, beside the stable version over the same time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    """How much its share of failed batches may exceed that of the stable version."""
    cold_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How much its share of calls of users whose items it does not know may exceed the stable version's."""
    latency_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """How many times the stable version's time in Triton its own may be, at the median and at the p99."""
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Least mean share of the stable version's top 10 that its own top 10 holds."""
    drift: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.5
    """Most that the order of the items which both top 10s hold may differ: see `VersionFigures.drift`. An
    order that has nothing to do with the other one gives 1; more than 2 is never reached."""
    min_calls: Annotated[int, Field(ge=1)] = 50
    """Calls that it must have answered before it may pass a step."""


class Plan(BaseModel):
    """What an operator has asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Annotated[float, Field(gt=0, le=100)], ...] = (1.0, 5.0, 25.0, 100.0)
    """Shares of the users, one after the other."""
    step_s: Annotated[float, Field(gt=0, le=7 * 86400)] = 60.0
    """Least time at each share, and with shadow calls alone; longer if calls are few."""
    shadow_percent: Percent = 10.0
    """Share of the requests that the candidate answers unseen; 0: it gets users at once."""
    grace_s: Annotated[float, Field(ge=0, le=86400)] = 10.0
    """How long the version before stays loaded after the last step."""
    bounds: Bounds = Bounds()
    experiment: Experiment | None = None
    """Set: not a rollout, but an experiment between the stable version and the candidate."""

    @field_validator("steps")
    @classmethod
    def _ascending(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if not steps or list(steps) != sorted(set(steps)):
            raise PydanticCustomError("steps", "must be one or more shares, each larger than the one before")
        return steps


class Entry(BaseModel):
    """Something that happened."""

    model_config = ConfigDict(frozen=True)

    time: float
    """Unix seconds."""
    text: str


class Ended(BaseModel):
    """An experiment that is over."""

    model_config = ConfigDict(frozen=True)

    name: str
    time: float
    """When, Unix seconds."""


class Rollout(Traffic):
    """The record."""

    phase: Phase = Phase.IDLE
    since: float = 0.0
    """When this phase, or this step of it, began; Unix seconds."""
    plan: Plan = Plan()
    step: int = 0
    """Place in `plan.steps`."""
    held: bool = False
    """An operator has set `percent`: the driver judges, and does not go on by itself."""
    previous: int | None = None
    """In RETIRE: the version that was stable before, still loaded."""
    keep_candidate: bool = False
    """In ROLLED_BACK: the candidate stays loaded, to be looked at."""
    reason: str = ""
    """In ROLLED_BACK: why."""
    reference: dict[str, Any] = Field(default_factory=dict)
    """What was counted of the stable version when it last had calls (`VersionFigures.plain`): at 100 % it has
    none, and a driver that is started then needs something to judge by."""
    ended: tuple[Ended, ...] = ()
    """The latest experiments that are over, oldest first."""
    history: tuple[Entry, ...] = ()
    """The latest entries, oldest first."""

    @property
    def loaded(self) -> tuple[int, ...]:
        """The versions that Triton is to have, the stable one first."""
        wanted = self.phase in (UNDER_WAY | LIVE) - {Phase.CHECK} or (
            self.phase is Phase.ROLLED_BACK and self.keep_candidate
        )
        candidate = (self.candidate,) if self.candidate is not None and wanted else ()
        previous = (self.previous,) if self.previous is not None else ()
        return (self.stable, *candidate, *previous)

    def end_of(self, experiment: str) -> float | None:
        """When an experiment ended, Unix seconds; None if it runs, or is not known any more."""
        return next((one.time for one in self.ended if one.name == experiment), None)

    @property
    def in_use(self) -> frozenset[int]:
        """The versions that may not be deleted."""
        return frozenset((*self.loaded, *((self.candidate,) if self.candidate is not None else ())))


def idle(stable: int, now: float, text: str) -> Rollout:
    """A new record."""
    return Rollout(stable=stable, salt=secrets.token_hex(8), since=now, history=(Entry(time=now, text=text),))


def start(rollout: Rollout, version: int, plan: Plan, now: float) -> Rollout:
    """Begins a rollout, or an experiment if the plan has one.

    Raises:
        NotPossible: one is under way, or the version is the stable one.
    """
    if rollout.phase not in (Phase.IDLE, Phase.ROLLED_BACK):
        raise NotPossible(_busy(rollout))
    if version == rollout.stable:
        raise NotPossible(f"version {version} is the stable version already")
    what = f"experiment {plan.experiment.name} with" if plan.experiment else "rollout of"
    return _moved(
        rollout,
        Phase.CHECK,
        now,
        f"{what} version {version} beside version {rollout.stable} begins",
        candidate=version,
        plan=plan,
        step=0,
        salt=secrets.token_hex(8),
    )


def serve(rollout: Rollout, version: int, now: float) -> Rollout:
    """`version` becomes the stable one without having been compared with the one before.

    Raises:
        NotPossible: a rollout or an experiment is under way.
    """
    if rollout.phase not in (Phase.IDLE, Phase.ROLLED_BACK):
        raise NotPossible(_busy(rollout))
    if (rollout.phase, rollout.stable) == (Phase.IDLE, version):
        return rollout
    text = f"version {version} is the stable version"
    return _moved(rollout, Phase.IDLE, now, text, stable=version, candidate=None)


def checked(rollout: Rollout, now: float) -> Rollout:
    """The candidate's files are as published, and there is room for it."""
    return _moved(rollout, Phase.LOAD, now, f"version {rollout.candidate} is whole; loading it")


def loaded(rollout: Rollout, now: float) -> Rollout:
    """Triton has the candidate."""
    return _moved(rollout, Phase.PROVE, now, f"version {rollout.candidate} is loaded; trying it out")


def proven(rollout: Rollout, now: float, how: str) -> Rollout:
    """The candidate answers as it should: it may meet requests."""
    plan = rollout.plan
    if plan.experiment is not None:
        text = (
            f"{how}; experiment {plan.experiment.name} runs with {plan.experiment.percent:g} % of the users"
        )
        return _moved(rollout, Phase.EXPERIMENT, now, text, experiment=plan.experiment)
    if plan.shadow_percent > 0:
        text = f"{how}; it answers {plan.shadow_percent:g} % of the requests unseen"
        return _moved(rollout, Phase.SHADOW, now, text, shadow_percent=plan.shadow_percent)
    return _at_step(rollout, 0, now, how)


def passed(rollout: Rollout, now: float, how: str, reference: dict[str, Any]) -> Rollout:
    """The candidate has passed shadow calls or a step: the next one, or promotion."""
    rollout = rollout.model_copy(update={"reference": reference})
    if rollout.phase is Phase.SHADOW:
        return _at_step(rollout, 0, now, how)
    if rollout.step + 1 < len(rollout.plan.steps):
        return _at_step(rollout, rollout.step + 1, now, how)
    return promote(rollout, now, how)


def hold_at(rollout: Rollout, percent: float, now: float) -> Rollout:
    """An operator's share: it stays until an operator sets another, promotes or rolls back.

    Raises:
        NotPossible: the candidate has not proven itself, or there is none.
    """
    if rollout.phase not in (Phase.SHADOW, Phase.CANARY):
        raise NotPossible(f"traffic can be set in the phases shadow and canary, not in {rollout.phase}")
    text = f"an operator set {percent:g} %"
    return _moved(
        rollout, Phase.CANARY, now, text, percent=percent, shadow_percent=rollout.shadow_percent, held=True
    )


def promote(rollout: Rollout, now: float, how: str = "an operator promoted it") -> Rollout:
    """The candidate becomes the stable version.

    Raises:
        NotPossible: the candidate has not proven itself, or there is none.
    """
    if rollout.phase not in (Phase.SHADOW, Phase.CANARY) or rollout.candidate is None:
        raise NotPossible(
            f"a version can be promoted in the phases shadow and canary, not in {rollout.phase}"
        )
    return _moved(
        rollout,
        Phase.RETIRE,
        now,
        f"{how}; version {rollout.candidate} is the stable version now",
        stable=rollout.candidate,
        candidate=None,
        previous=rollout.stable,
    )


def retired(rollout: Rollout, now: float) -> Rollout:
    """The version before is no longer needed."""
    return _moved(rollout, Phase.IDLE, now, f"version {rollout.previous} is let go", previous=None)


def roll_back(rollout: Rollout, reason: str, now: float, *, keep: bool = True) -> Rollout:
    """All traffic to the version that was stable before. With `keep`, a candidate that was loaded stays so.

    Raises:
        NotPossible: nothing is under way.
    """
    if rollout.phase is Phase.RETIRE:
        assert rollout.previous is not None
        back = {"stable": rollout.previous, "candidate": rollout.stable, "previous": None}
    elif rollout.phase in UNDER_WAY | LIVE:
        back = {"stable": rollout.stable, "candidate": rollout.candidate}
    else:
        raise NotPossible(
            f"there is nothing to roll back (phase {rollout.phase}); to return to an older version, start a "
            "rollout of it"
        )
    # One line, whatever a program has said.
    reason = " ".join(reason.split())[:_LONGEST_REASON]
    was_loaded = rollout.phase not in (Phase.CHECK, Phase.LOAD)
    text = f"rolled back to version {back['stable']}: {reason}"
    return _moved(
        rollout, Phase.ROLLED_BACK, now, text, **back, reason=reason, keep_candidate=keep and was_loaded
    )


def not_kept(rollout: Rollout, now: float) -> Rollout:
    """A candidate that was rolled back is no longer in Triton, and is not loaded again."""
    text = f"version {rollout.candidate} is not in Triton any more"
    return _moved(rollout, Phase.ROLLED_BACK, now, text, reason=rollout.reason)


def discard(rollout: Rollout, now: float) -> Rollout:
    """A candidate that was rolled back is unloaded.

    Raises:
        NotPossible: there is none.
    """
    if rollout.phase is not Phase.ROLLED_BACK:
        raise NotPossible(f"there is no rolled-back version to discard (phase {rollout.phase})")
    return _moved(rollout, Phase.IDLE, now, f"version {rollout.candidate} is discarded", candidate=None)


def end_experiment(rollout: Rollout, now: float) -> Rollout:
    """The experiment is over; all users meet the stable version.

    Raises:
        NotPossible: none runs.
    """
    if rollout.phase is not Phase.EXPERIMENT or rollout.experiment is None:
        raise NotPossible(f"no experiment runs (phase {rollout.phase})")
    text = f"experiment {rollout.experiment.name} has ended"
    return _moved(rollout, Phase.IDLE, now, text, candidate=None)


def _busy(rollout: Rollout) -> str:
    if rollout.phase is Phase.EXPERIMENT and rollout.experiment is not None:
        return f"the experiment {rollout.experiment.name} runs: end it first"
    if rollout.phase is Phase.RETIRE:
        return f"version {rollout.previous} is being let go: wait a moment, or roll back first"
    return (
        f"version {rollout.candidate} is under way (phase {rollout.phase}): promote it or roll it back first"
    )


def _at_step(rollout: Rollout, step: int, now: float, how: str) -> Rollout:
    percent = rollout.plan.steps[step]
    return _moved(
        rollout,
        Phase.CANARY,
        now,
        f"{how}; it answers {percent:g} % of the users",
        step=step,
        percent=percent,
        shadow_percent=rollout.plan.shadow_percent,
    )


def _moved(rollout: Rollout, phase: Phase, now: float, text: str, **changes: object) -> Rollout:
    """`rollout` in another phase. What belongs to the phase that it leaves falls back to its default."""
    stays = {
        "percent": 0.0,
        "shadow_percent": 0.0,
        "experiment": None,
        "held": False,
        "keep_candidate": False,
        "reason": "",
        "reference": rollout.reference if phase is Phase.CANARY else {},
    }
    history = (*rollout.history, Entry(time=now, text=text))[-_MOST_HISTORY:]
    ended = rollout.ended
    if rollout.experiment is not None:  # no phase follows that would go on with it
        ended = (*ended, Ended(name=rollout.experiment.name, time=now))[-_MOST_HISTORY:]
    update = stays | {"phase": phase, "since": now, "history": history, "ended": ended} | changes
    return rollout.model_copy(update=update)


def mistake(error: ValidationError, names: Mapping[str, str]) -> str:
    """The first thing that is wrong with a plan; `names`: what the caller calls its fields."""
    problem = error.errors()[0]
    field = next(str(part) for part in reversed(problem["loc"]) if isinstance(part, str))
    return f"{names.get(field, field)}: {problem['msg']}, not {problem['input']!r}"
