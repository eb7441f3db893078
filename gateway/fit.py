"""Whether this gateway can call a version: the tensors that it wants, how wide they are, what it answers.

All versions of a model share one configuration in Triton, so widths that may differ from version to version
are left open there (-1). The `manifest.json` beside a version says what they are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.model_inputs import FILLABLE_INPUTS, FREE_WIDTH_INPUTS

_REQUIRED_OUTPUTS = frozenset({"item_keys", "scores", "reason_keys", "user_vector"})
_LETTERS = {"history_keys": "T", "history_times": "T", "user_vector": "D", "allowed_categories": "C"}
"""The widths of the manifest that inputs have. Those that are not here have one value a row, or are free."""


class Unfit(Exception):
    """A version that this gateway cannot call; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a version."""

    datatype: str
    """Triton's name of it."""
    width: int
    """Values per row; 0: as many as the widest row of a call needs."""


def read_widths(manifest: Path) -> dict[str, int]:
    """The widths that a version's manifest says, by their letters.

    Raises:
        Unfit: it cannot be read, or says none.
    """
    try:
        widths = json.loads(manifest.read_bytes())["widths"]
        return {letter: int(width) for letter, width in widths.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unfit(f"{manifest}: has no widths that can be read ({error!r})") from error


def fitting_inputs(
    inputs: Mapping[str, tuple[str, Sequence[int]]], outputs: Collection[str], widths: Mapping[str, int]
) -> dict[str, Tensor]:
    """The inputs of a version, by name.

    Args:
        inputs: name → type and shape, as Triton lists them: with batching the first dimension is -1.
        outputs: the names of what it answers.
        widths: what its manifest says.

    Raises:
        Unfit: an input is none that can be filled, Triton and the manifest contradict each other, or an
            output is missing.
    """
    fitting = {
        name: Tensor(kind, _width(name, kind, list(shape), widths)) for name, (kind, shape) in inputs.items()
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
