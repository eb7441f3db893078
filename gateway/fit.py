"""Whether this gateway can call a version: the tensors that it wants, how wide they are, what it answers.

All versions of a model share one configuration in Triton. So widths that may differ from version to version
are left open there (-1), and inputs that versions of earlier releases lack are listed for all of them. The
`manifest.json` beside a version says what its own are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.schema import EventType
from gateway.model_inputs import FILLABLE_INPUTS, FREE_WIDTH_INPUTS

_REQUIRED_OUTPUTS = frozenset({"item_keys", "scores", "reason_keys", "user_vector"})
_LETTERS = {
    "history_keys": "T",
    "history_times": "T",
    "history_types": "T",
    "user_features": "F",
    "user_vector": "D",
    "allowed_categories": "C",
}
"""The widths of the manifest that inputs have. Those that are not here have one value a row, or are free."""
_ADDED_INPUTS = frozenset({"history_types", "user_features", "surface", "diversity"})
"""Those that Triton lists for every version. The manifest of one that takes none says nothing of inputs."""


class Unfit(Exception):
    """A version that this gateway cannot call; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a version."""

    datatype: str
    """Triton's name of it."""
    width: int
    """Values per row; 0: as many as the widest row of a call needs."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a version's manifest says of how it is called."""

    widths: Mapping[str, int]
    """By their letters."""
    inputs: frozenset[str] = frozenset()
    """Names of its inputs; empty: it is of an earlier release, and takes those that such versions had."""
    attributes: tuple[str, ...] = ()
    """Names of the user attributes that it takes, in the order of `user_features`."""
    consumes: NDArray[np.bool_] | None = None
    """See `features.record.UserRecord.consumed`."""
    counts: NDArray[np.bool_] | None = None
    """See `features.record.UserRecord.counting`."""
    vectors_may_lag: bool = False
    """Whether its encoder is too slow to run with requests: see `freshness`."""


def read_manifest(manifest: Path) -> Said:
    """What a version's manifest says.

    Raises:
        Unfit: it cannot be read, says no widths, or contradicts itself.
    """
    try:
        fields = json.loads(manifest.read_bytes())
        widths = {letter: int(width) for letter, width in fields["widths"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unfit(f"{manifest}: has no widths that can be read ({error!r})") from error
    try:
        said = Said(
            widths,
            frozenset(fields.get("inputs", ())),
            tuple(map(str, fields.get("attributes", ()))),
            _types(fields.get("consumes")),
            ~ignored if (ignored := _types(fields.get("ignores") or None)) is not None else None,
            bool(fields.get("vectors_may_lag", False)),
        )
    except (KeyError, TypeError) as error:
        raise Unfit(f"{manifest}: says what no gateway of this release understands ({error!r})") from error
    wanted = max(1, len(said.attributes))
    if widths.get("F", wanted) != wanted:
        raise Unfit(f"{manifest}: says a width F of {widths['F']}, and {len(said.attributes)} attributes")
    return said


def _types(names: Sequence[str] | None) -> NDArray[np.bool_] | None:
    """Bool `[256]`: which event types are named, by their number."""
    if names is None:
        return None
    named = np.zeros(256, np.bool_)
    named[[EventType[name] for name in names]] = True
    return named


def fitting_inputs(
    inputs: Mapping[str, tuple[str, Sequence[int]]], outputs: Collection[str], said: Said
) -> dict[str, Tensor]:
    """The inputs of a version, by name.

    Args:
        inputs: name → type and shape, as Triton lists them: with batching the first dimension is -1.
        outputs: the names of what it answers.
        said: what its manifest says.

    Raises:
        Unfit: an input is none that can be filled, Triton and the manifest contradict each other, or an
            output is missing.
    """
    if unlisted := said.inputs.difference(inputs):
        raise Unfit(f"it takes an input {min(unlisted)!r}, which Triton's configuration lacks")
    fitting = {
        name: Tensor(kind, _width(name, kind, list(shape), said.widths))
        for name, (kind, shape) in inputs.items()
        if name not in _ADDED_INPUTS or name in said.inputs
    }
    if missing := _REQUIRED_OUTPUTS.difference(outputs):
        raise Unfit(f"it lacks the output {min(missing)!r}")
    return fitting


def _width(name: str, kind: str, shape: list[int], widths: Mapping[str, int]) -> int:
    if name not in FILLABLE_INPUTS:
        raise Unfit(f"it wants an input {name!r}, which this gateway cannot fill")
    if kind != FILLABLE_INPUTS[name]:
        raise Unfit(f"input {name!r} must be {FILLABLE_INPUTS[name]}, not {kind}")
    if name in FREE_WIDTH_INPUTS:
        width = -1
    elif letter := _LETTERS.get(name):
        width = widths.get(letter, 0)
        if width < 1:
            raise Unfit(f"its manifest must say a width {letter} of at least 1, for the input {name!r}")
    else:
        width = 1
    if shape not in ([-1, width], [-1, -1]):
        raise Unfit(f"input {name!r} must have the shape {[-1, width]}, not {shape}")
    return max(width, 0)
