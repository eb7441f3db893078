"""The tensors of a SavedModel's signature, and the part of them that Riptide's contract fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inference.errors import UnfitModel

RECOMMEND = "recommend"
"""The signature that is served as the recommender."""

ENCODE = "encode"
"""The signature that is served as its encoder: histories to user vectors."""

INPUTS: Mapping[str, str] = {
    "history_keys": "int64",
    "history_times": "int64",
    "history_types": "int32",
    "request_time": "int64",
    "user_features": "int64",
    "surface": "int64",
    "user_vector": "float32",
    "user_vector_fresh": "int32",
    "exclude_keys": "int64",
    "allowed_categories": "bool",
    "diversity": "float32",
}
"""Inputs that somebody can fill, with numpy's names of their types; a version that wants another one is
refused."""

ADDED_INPUTS = frozenset({"history_types", "user_features", "surface", "diversity"})
"""Inputs that versions of earlier releases lack; both kinds are served side by side."""

ENCODE_INPUTS = ("history_keys", "history_times", "history_types", "request_time", "user_features")
"""What `encode` may take; a version takes those of them that its `recommend` takes."""

ENCODE_OUTPUT = "user_vector"
"""What `encode` answers."""

OUTPUTS: Mapping[str, str] = {
    "item_keys": "int64",
    "scores": "float32",
    "reason_keys": "int64",
    "user_vector": "float32",
}
"""Outputs that every version has."""

OUTPUT_SETS: Sequence[tuple[str, ...]] = (
    ("item_keys", "scores"),
    ("item_keys", "scores", "reason_keys"),
    ("item_keys", "scores", "user_vector"),
    ("item_keys", "scores", "reason_keys", "user_vector"),
)
"""What callers ask for together. Each set is a graph of its own in TensorFlow."""

WIDTHS: Mapping[str, str] = {
    "history_keys": "T",
    "user_features": "F",
    "user_vector": "D",
    "allowed_categories": "C",
    "item_keys": "K",
}
"""Which tensor's width is which letter of the contract."""

FREE_WIDTH = frozenset({"exclude_keys"})
"""Inputs as wide as the widest row of a call: users differ by hundreds in how much they have seen."""

SINGLE = frozenset({"request_time", "surface", "user_vector_fresh", "diversity"})
"""Inputs of one value a row. The widths of all others are each version's own."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """`dims` leaves out the batch axis; `dtype` is numpy's name."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs, each in alphabetical order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def widths(self) -> dict[str, int]:
        """The contract's widths: T, F, D, C, K."""
        found = {tensor.name: tensor.dims[0] for tensor in (*self.inputs, *self.outputs)}
        return {letter: found[name] for name, letter in WIDTHS.items() if name in found}


def read_signature(report: Mapping[str, Any]) -> Signature:
    """Check the signature that `savedmodel.py` reported against the contract.

    Raises:
        UnfitModel: naming the tensor, what it is and what it should be.
    """
    inputs = _tensors("input", report["inputs"], INPUTS)
    outputs = _tensors("output", report["outputs"], OUTPUTS)
    missing = sorted(set(OUTPUTS) - {tensor.name for tensor in outputs})
    if missing:
        raise UnfitModel(f"the signature {RECOMMEND!r} has no output {missing[0]!r}")
    signature = Signature(inputs, outputs)
    dims = {tensor.name: tensor.dims for tensor in outputs}
    widths_in = {tensor.name: tensor.dims[0] for tensor in inputs}
    for name in ("history_times", "history_types"):
        if name in widths_in and widths_in[name] != widths_in.get("history_keys"):
            raise UnfitModel(
                f"input {name!r} has width {widths_in[name]}, but history_keys has "
                f"{widths_in.get('history_keys')}"
            )
    vectors_in = [tensor.dims for tensor in inputs if tensor.name == "user_vector"]
    if vectors_in not in ([], [dims["user_vector"]]):
        raise UnfitModel(
            "user_vector has one width as input and another as output, so it could not be cached"
        )
    for name in ("scores", "reason_keys"):
        if dims[name] != dims["item_keys"]:
            raise UnfitModel(
                f"output {name!r} has width {dims[name][0]}, but item_keys has {dims['item_keys'][0]}"
            )
    return signature


def _tensors(
    side: str, reported: Mapping[str, Sequence[Any]], known: Mapping[str, str]
) -> tuple[Tensor, ...]:
    tensors = []
    for name, (dtype, shape) in sorted(reported.items()):
        if name not in known:
            raise UnfitModel(
                f"{side} {name!r} is not part of the tensor contract, so nobody can fill or read it"
            )
        if dtype != known[name]:
            raise UnfitModel(f"{side} {name!r} is {dtype}, and must be {known[name]}")
        if name in FREE_WIDTH:
            if list(shape) != [-1, -1]:
                raise UnfitModel(f"{side} {name!r} has shape {shape}, and must be [-1, -1]: both free")
        elif name in SINGLE:
            if list(shape) != [-1, 1]:
                raise UnfitModel(f"{side} {name!r} has shape {shape}, and must be [-1, 1]: one value a row")
        elif len(shape) != 2 or shape[0] != -1 or shape[1] < 1:
            raise UnfitModel(
                f"{side} {name!r} has shape {shape}, and must be [-1, width]: free batch, fixed width"
            )
        tensors.append(Tensor(name, dtype, tuple(shape[1:])))
    return tuple(tensors)
