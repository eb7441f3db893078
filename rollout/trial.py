"""A loaded candidate tried out through Triton itself, before any request meets it.

It must answer its own golden requests as at its export. Then the stable version's golden requests are put to
both: they are real histories, so a candidate whose pages have nothing in common with the stable version's, or
that takes several times as long, is found before a user sees it. As in live traffic, neither is told of
events of types that it ignores; users of whom one of the two would be told nothing are left out.

Compared are the items of the top 10 and the time, never the scores, whose scale is each version's own.
Both are asked for relevance alone: an older version knows no diversity.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from features.schema import EventType
from inference.errors import TritonError
from inference.golden import Arrays, Golden, read_golden
from inference.proof import infer, prove_version
from inference.signature import OUTPUT_SETS
from rollout.errors import PreflightFailed
from rollout.manifest import Manifest, read_manifest
from rollout.state import Bounds

_ROUNDS = 2
"""Times that each history is put to both."""
_TOP = 10
_OUTPUTS = OUTPUT_SETS[0]  # item keys and scores


@dataclass(frozen=True, slots=True)
class Trial:
    """What the trial showed."""

    requests: int
    overlap: float
    """Mean share of the stable version's top 10 that the candidate's top 10 holds; NaN if no history could be
    put to both."""
    latency_ratio: float
    """Median time of the candidate over that of the stable version, for the same requests; NaN likewise."""

    def __str__(self) -> str:
        if math.isnan(self.overlap):
            return (
                f"{self.requests} golden requests answered as expected; not compared with the stable one: "
                "its own hold no history of which both read something"
            )
        return (
            f"{self.requests} golden requests answered as expected, overlap {self.overlap:.2f} and "
            f"{self.latency_ratio:.1f} times the time of the stable version on the same histories"
        )


async def try_out(
    stub: Any, model: str, model_folder: Path, *, stable: int, candidate: int, bounds: Bounds
) -> Trial:
    """Proves the candidate, and compares it with the stable version.

    Raises:
        PreflightFailed: what it did wrong, with the figure and the bound.
    """
    try:
        await prove_version(stub, model, model_folder.parent, candidate)
        golden = read_golden(model_folder / str(stable) / "golden.npz")
    except TritonError as error:
        raise PreflightFailed(str(error)) from error
    taken = _manifest(model_folder / str(stable)).attributes
    versions = (stable, candidate)
    asked = _requests(golden, taken, [model_folder / str(version) for version in versions])
    requests = dict(zip(versions, asked, strict=True))
    rows = len(requests[stable]["history_keys"])
    if not rows:  # no fault of the candidate's: how many of its users it leaves cold is seen under traffic
        return Trial(golden.rows, math.nan, math.nan)
    answers: dict[int, list[Mapping[str, NDArray[Any]]]] = {stable: [], candidate: []}
    times: dict[int, list[float]] = {stable: [], candidate: []}
    # One history at a time, so that live calls of the stable version wait for one at most; the versions in
    # turn, so that what else the machine does meets both.
    for row in range(_ROUNDS * rows):
        for version, inputs in requests.items():
            one = {name: values[row % rows : row % rows + 1] for name, values in inputs.items()}
            began = time.perf_counter()
            try:
                answer = await infer(stub, model, version, one, _OUTPUTS)
            except grpc.aio.AioRpcError as error:
                raise PreflightFailed(
                    f"version {version} fails golden requests of version {stable}: {error.details()}"
                ) from error
            times[version].append(time.perf_counter() - began)
            if row < rows:
                answers[version].append(answer)
    trial = Trial(
        golden.rows,
        float(np.mean([_overlap(*pair) for pair in zip(answers[stable], answers[candidate], strict=True)])),
        statistics.median(times[candidate]) / statistics.median(times[stable]),
    )
    if not all(np.isfinite(answer["scores"]).all() for answer in answers[candidate]):
        raise PreflightFailed(f"version {candidate} answers scores that are not finite")
    if trial.overlap < bounds.overlap:
        raise PreflightFailed(
            f"version {candidate}'s top {_TOP} holds {trial.overlap:.2f} of version {stable}'s on "
            f"{rows} histories, and {bounds.overlap:g} is the least"
        )
    if trial.latency_ratio > bounds.latency_ratio:
        raise PreflightFailed(
            f"version {candidate} takes {trial.latency_ratio:.1f} times as long as version {stable} for the "
            f"same requests, and {bounds.latency_ratio:g} times is the most"
        )
    return trial


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise PreflightFailed(f"{folder}: has no manifest.json that can be read")
    return manifest


def _requests(golden: Golden, taken: Sequence[str], folders: Sequence[Path]) -> list[dict[str, NDArray[Any]]]:
    """The users of `golden` as inputs of the versions in `folders`, the same users for each.

    `taken` are the attributes of the version that `golden` is of, in the order of its `user_features`.
    """
    told = [_counting(golden.inputs, _manifest(folder).ignores) for folder in folders]
    # A user without a history has no page of a version that takes no attributes.
    known = np.logical_and.reduce([inputs["history_keys"].any(axis=1) for inputs in told])
    return [
        _inputs({name: values[known] for name, values in inputs.items()}, taken, folder)
        for inputs, folder in zip(told, folders, strict=True)
    ]


def _counting(inputs: Arrays, ignores: Sequence[str]) -> Arrays:
    """Golden inputs without the events of the types named in `ignores`, as the gateway leaves them out."""
    if not ignores or "history_types" not in inputs:
        return inputs
    kept = ~np.isin(inputs["history_types"], [EventType[name] for name in ignores])
    to_the_right = np.argsort(kept, axis=1, kind="stable")  # padding counts as kept, so events stay behind it
    histories = {
        name: np.take_along_axis(np.where(kept, values, 0), to_the_right, axis=1)
        for name, values in inputs.items()
        if name.startswith("history_")
    }
    return {**inputs, **histories}


def _inputs(asked: Arrays, taken: Sequence[str], folder: Path) -> dict[str, NDArray[Any]]:
    """`asked` as inputs of the version in `folder`: no filter, no cached vector, no diversity."""
    manifest = _manifest(folder)
    widths, rows = manifest.widths, len(asked["history_keys"])
    own = read_golden(folder / "golden.npz").inputs
    filled: dict[str, NDArray[Any]] = {
        "history_keys": _fitted(asked["history_keys"], widths["T"]),
        "request_time": asked["request_time"],
        "surface": asked.get("surface", np.zeros((rows, 1), np.int64)),
        "exclude_keys": np.zeros((rows, 1), np.int64),
        "allowed_categories": np.ones((rows, widths["C"]), np.bool_),
        "diversity": np.zeros((rows, 1), np.float32),
    }
    if "history_times" in own:
        filled["history_times"] = _fitted(asked["history_times"], widths["T"])
    if "history_types" in own:
        # An older version's histories have no types: the one that this version's own have most.
        usual = np.bincount(own["history_types"].ravel(), minlength=2)[1:].argmax() + 1
        types = asked.get("history_types", np.where(asked["history_keys"] != 0, usual, 0))
        filled["history_types"] = _fitted(types, widths["T"]).astype(np.int32)
    if "user_features" in own:
        features = filled["user_features"] = np.zeros((rows, widths["F"]), np.int64)
        for slot, name in enumerate(manifest.attributes):
            if name in taken:
                features[:, slot] = asked["user_features"][:, list(taken).index(name)]
    if "user_vector" in own:
        filled["user_vector"] = np.zeros((rows, widths["D"]), np.float32)
        filled["user_vector_fresh"] = np.zeros((rows, 1), np.int32)
    return {name: values for name, values in filled.items() if name in own}


def _fitted(history: NDArray[Any], width: int) -> NDArray[Any]:
    """The newest `width` events, padded on the left if there are fewer."""
    missing = max(0, width - history.shape[1])
    return np.pad(history, ((0, 0), (missing, 0)))[:, -width:]


def _overlap(stable: Mapping[str, NDArray[Any]], candidate: Mapping[str, NDArray[Any]]) -> float:
    """The share of the stable version's top that the candidate's top holds, for one history."""
    wanted, other = (set(answer["item_keys"][0, :_TOP].tolist()) - {0} for answer in (stable, candidate))
    return len(wanted & other) / len(wanted) if wanted else 1.0
