"""Golden requests: what was asked at export, what was answered, whether an answer given now is the same."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import UnfitModel

Arrays = Mapping[str, NDArray[Any]]

TOLERANCE = 2e-3
"""Largest difference of a score or vector element, relative to the largest magnitude in its row; another
machine,
or a GPU's TF32, rounds differently."""

REASONS_EQUAL = 0.95
"""Least share of equal reasons: two history items can speak equally well for an item."""


@dataclass(frozen=True, slots=True)
class Golden:
    """`inputs` and `outputs` by tensor name, each `[rows, width]`."""

    inputs: Arrays
    outputs: Arrays

    @property
    def rows(self) -> int:
        """How many requests there are."""
        return len(next(iter(self.inputs.values())))


def read_golden(path: Path) -> Golden:
    """Read `golden.npz`, arrays `in:<tensor>` and `out:<tensor>`.

    Raises:
        UnfitModel: not such a file, or its answers could not tell a working model from a broken one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise UnfitModel(f"{path}: cannot be read as golden requests: {exc}") from exc
    golden = Golden(
        {name[3:]: array for name, array in arrays.items() if name.startswith("in:")},
        {name[4:]: array for name, array in arrays.items() if name.startswith("out:")},
    )
    for name in ("item_keys", "scores", "reason_keys", "user_vector"):
        if name not in golden.outputs:
            raise UnfitModel(f"{path}: has no array 'out:{name}'")
    rows = {len(array) for array in arrays.values()}
    if not golden.inputs or len(rows) != 1 or rows == {0}:
        raise UnfitModel(f"{path}: must hold 'in:' and 'out:' arrays of one and the same number of rows")
    for name in ("scores", "user_vector"):
        if not np.isfinite(golden.outputs[name]).all():
            raise UnfitModel(f"{path}: out:{name} holds values that are not finite")
    if not golden.outputs["item_keys"].any() or not golden.outputs["scores"].any():
        raise UnfitModel(f"{path}: the expected answers are all zeros, so they would prove nothing")
    return golden


def difference(golden: Golden, answers: Arrays) -> str | None:
    """The first way in which `answers` differ from the golden ones, as a sentence; None if they agree.

    Outputs that `answers` does not hold are not compared. Item keys may change places where their scores are
    equal within `TOLERANCE`. Scores need not fall from slot to slot: a page that was asked for with diversity
    is in another order, and must be in the same one again.
    """
    for name in sorted(answers):
        answer, expected = answers[name], golden.outputs[name]
        if answer.shape != expected.shape:
            return f"{name}: shape {list(answer.shape)} instead of {list(expected.shape)}"
        if answer.dtype.kind == "f" and not np.isfinite(answer).all():
            return f"{name}: row {_first_row(~np.isfinite(answer))} holds values that are not finite"
        if not answer.any() and expected.any():
            return f"{name}: all zeros (what Triton's Python backend hands over with numpy 2)"
    for name in ("scores", "user_vector"):
        if name in answers:
            wrong = ~_close(golden.outputs[name], answers[name])
            if wrong.any():
                row = _first_row(wrong)
                off = float(np.abs(golden.outputs[name][row] - answers[name][row]).max())
                return f"{name}: row {row} is off by {off:.3g}"
    if "item_keys" in answers:
        wrong = ~_same_keys(golden, answers["item_keys"])
        if wrong.any():
            row = _first_row(wrong)
            slot = int(np.argmax(wrong[row]))
            got, expected_key = answers["item_keys"][row, slot], golden.outputs["item_keys"][row, slot]
            return f"item_keys: row {row}, slot {slot} is {got} instead of {expected_key}"
    if "item_keys" in answers and "reason_keys" in answers:
        same_slot = golden.outputs["item_keys"] == answers["item_keys"]
        equal = (golden.outputs["reason_keys"] == answers["reason_keys"])[same_slot].mean()
        if equal < REASONS_EQUAL:
            return f"reason_keys: only {equal:.0%} are the expected ones"
    return None


def _first_row(wrong: NDArray[np.bool_]) -> int:
    return int(np.argmax(wrong.any(axis=1)))


def _close(expected: NDArray[Any], answer: NDArray[Any]) -> NDArray[np.bool_]:
    scale = np.abs(expected).max(axis=1, keepdims=True)
    close: NDArray[np.bool_] = np.abs(expected - answer) <= TOLERANCE * scale + 1e-6
    return close


def _same_keys(golden: Golden, answer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool `[rows, K]`: the slot holds the expected key, or one whose expected score ties with the slot's.

    A key that the golden page does not hold at all may only take the place of scores that tie with the last
    one.
    """
    keys, scores = golden.outputs["item_keys"], golden.outputs["scores"]
    limit = TOLERANCE * np.abs(scores).max(axis=1, keepdims=True) + 1e-6
    matches = answer[:, :, None] == keys[:, None, :]
    known = matches.any(axis=2)
    own_score = np.where(known, np.take_along_axis(scores, matches.argmax(axis=2), axis=1), scores[:, -1:])
    ties = np.abs(own_score - scores) <= limit
    empty_agrees = (answer == 0) == (keys == 0)
    same: NDArray[np.bool_] = (answer == keys) | (ties & empty_agrees)
    return same
