"""The stable version's golden requests, as another version is asked them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from features.schema import EventType, feature_key, surface_key
from inference.golden import Golden, read_golden
from inference.proof import TRITON_NAMES
from rollout.manifest import MANIFEST, Manifest, read_manifest
from rollout.state import Bounds
from rollout.trial import _requests, try_out
from tests.unit.rollout.published import write_version

OLDER: dict[str, NDArray[Any]] = {
    "history_keys": np.array([[0, 7, 8], [0, 0, 0], [5, 6, 7]]),
    "request_time": np.full((3, 1), 99),
    "exclude_keys": np.array([[3], [0], [0]]),
    "allowed_categories": np.ones((3, 4), np.bool_),
}
DE, FR, YOUNG = feature_key("country", "DE"), feature_key("country", "FR"), feature_key("age", "18")
RANKING: dict[str, NDArray[Any]] = OLDER | {
    "history_types": np.array([[0, 1, 2], [0, 0, 0], [3, 3, 10]], np.int32),
    "user_features": np.array([[DE, YOUNG], [FR, 0], [FR, 0]]),
    "surface": np.array([[surface_key("home")], [0], [0]]),
    "diversity": np.array([[0.7], [0.0], [0.7]], np.float32),
}


def golden(inputs: dict[str, NDArray[Any]]) -> Golden:
    rows = len(inputs["history_keys"])
    outputs: dict[str, NDArray[Any]] = {
        "item_keys": np.ones((rows, 1), np.int64),
        "scores": np.ones((rows, 1), np.float32),
        "reason_keys": np.ones((rows, 1), np.int64),
        "user_vector": np.ones((rows, 2), np.float32),
    }
    return Golden(inputs, outputs)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return tmp_path / "recommender"


def version(
    model_folder: Path,
    inputs: dict[str, NDArray[Any]],
    *attributes: str,
    number: int = 1,
    history: int = 4,
    ignores: Sequence[str] = (),
) -> Path:
    """A version that takes such inputs, with histories of 4 events and 2 categories."""
    folder = write_version(model_folder, number)
    own = golden(inputs)
    arrays = {f"in:{name}": values for name, values in own.inputs.items()}
    arrays |= {f"out:{name}": values for name, values in own.outputs.items()}
    np.savez(folder / "golden.npz", **arrays)  # type: ignore[arg-type]  # numpy's own flag
    manifest = read_manifest(folder)
    assert manifest is not None
    changed: Manifest = manifest.model_copy(
        update={
            "widths": {"T": history, "C": 2, "F": max(1, len(attributes))},
            "attributes": list(attributes),
            "ignores": list(ignores),
        }
    )
    (folder / MANIFEST).write_text(changed.text())
    return folder


def test_a_ranking_version_is_asked_an_older_ones_requests_without_surface_and_attributes(
    model_folder: Path,
) -> None:
    [asked] = _requests(golden(OLDER), [], [version(model_folder, RANKING, "country")])
    assert asked.keys() == RANKING.keys()
    assert asked["history_keys"].tolist() == [[0, 0, 7, 8], [0, 5, 6, 7]]
    # The type that its own histories have most.
    assert asked["history_types"].tolist() == [
        [0, 0, EventType.PLAY, EventType.PLAY],
        [0, *[EventType.PLAY] * 3],
    ]
    assert asked["history_types"].dtype == np.int32
    for name in ("user_features", "surface", "diversity", "exclude_keys"):
        assert asked[name].shape == (2, 1)
        assert not asked[name].any()
    assert asked["allowed_categories"].tolist() == [[True, True], [True, True]]


def test_an_older_version_is_asked_a_ranking_ones_requests_as_far_as_it_knows_them(
    model_folder: Path,
) -> None:
    [asked] = _requests(golden(RANKING), ["country", "age"], [version(model_folder, OLDER)])
    assert asked.keys() == OLDER.keys()


def test_attributes_are_put_where_the_version_has_them_and_diversity_is_left_out(model_folder: Path) -> None:
    folder = version(model_folder, RANKING, "age", "shoe_size", "country")
    [asked] = _requests(golden(RANKING), ["country", "age"], [folder])
    assert asked["user_features"].tolist() == [[YOUNG, 0, DE], [0, 0, FR]]
    assert asked["history_types"].tolist() == [[0, 0, 1, 2], [0, 3, 3, 10]]
    assert asked["surface"].tolist() == [[surface_key("home")], [0]]
    assert not asked["diversity"].any()


V, B = int(EventType.VIEW), int(EventType.PURCHASE)
VIEWS: dict[str, NDArray[Any]] = {
    "history_keys": np.array(
        [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 6, 7], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]
    ),
    "history_times": np.array([[0, 11, 12, 13, 14, 15], [0, 0, 0, 0, 16, 17], [0] * 6, range(21, 27)]),
    "history_types": np.array([[0, B, B, V, B, V], [0, 0, 0, 0, V, V], [0] * 6, [V] * 5 + [B]], np.int32),
    "request_time": np.array([[101], [102], [103], [104]]),
    "user_features": np.zeros((4, 1), np.int64),
}
"""Of four users: purchases amid views; views alone; nothing; a purchase after views."""


def test_each_version_is_told_its_newest_events_of_the_types_that_it_reads_and_both_of_the_same_users(
    model_folder: Path,
) -> None:
    stable = version(model_folder, VIEWS, history=6)
    candidate = version(model_folder, VIEWS, number=2, history=2, ignores=["VIEW"])
    all_of_it, purchases = _requests(golden(VIEWS), [], [stable, candidate])
    assert all_of_it["history_keys"].tolist() == VIEWS["history_keys"][[0, 3]].tolist()
    assert purchases["history_keys"].tolist() == [[2, 4], [0, 6]]
    assert purchases["history_times"].tolist() == [[12, 14], [0, 26]]
    assert purchases["history_types"].tolist() == [[B, B], [0, B]]
    assert purchases["history_types"].dtype == np.int32
    for asked in (all_of_it, purchases):
        assert asked["request_time"].tolist() == [[101], [104]]


def test_histories_without_types_stay_whole_whatever_the_version_ignores(model_folder: Path) -> None:
    folder = version(model_folder, RANKING, ignores=["VIEW", "PLAY"])
    [asked] = _requests(golden(OLDER), [], [folder])
    assert asked["history_keys"].tolist() == [[0, 0, 7, 8], [0, 5, 6, 7]]


class Answering:
    """A Triton whose versions answer as their golden requests say, and that keeps what it was asked."""

    def __init__(self, model_folder: Path) -> None:
        self.folder = model_folder
        self.asked: list[tuple[str, list[list[int]]]] = []
        """Version and histories of each inference."""

    async def ModelMetadata(self, request: Any, timeout: float) -> Any:
        answer = service_pb2.ModelMetadataResponse()
        for name in read_golden(self.folder / request.version / "golden.npz").inputs:
            answer.inputs.add(name=name)
        return answer

    async def ModelInfer(self, request: Any, timeout: float) -> Any:
        place = [tensor.name for tensor in request.inputs].index("history_keys")
        shape = tuple(request.inputs[place].shape)
        keys = np.frombuffer(request.raw_input_contents[place], np.int64).reshape(shape)
        self.asked.append((request.model_version, keys.tolist()))
        outputs = read_golden(self.folder / request.model_version / "golden.npz").outputs
        answer = service_pb2.ModelInferResponse()
        for wanted in request.outputs:
            rows = outputs[wanted.name][: len(keys)]
            answer.outputs.add(name=wanted.name, datatype=TRITON_NAMES[rows.dtype.name], shape=rows.shape)
            answer.raw_output_contents.append(rows.tobytes())
        return answer


async def test_a_trial_puts_the_purchases_alone_to_a_version_that_ignores_views(model_folder: Path) -> None:
    version(model_folder, VIEWS, history=6)
    version(model_folder, VIEWS, number=2, history=6, ignores=["VIEW"])
    triton = Answering(model_folder)
    bounds = Bounds(latency_ratio=100)  # of a busy machine the times say nothing
    trial = await try_out(triton, "recommender", model_folder, stable=1, candidate=2, bounds=bounds)
    assert trial.overlap == 1
    assert triton.asked[-2:] == [("1", [[1, 2, 3, 4, 5, 6]]), ("2", [[0, 0, 0, 0, 0, 6]])]


async def test_a_trial_without_a_history_that_both_versions_read_says_so_and_compares_nothing(
    model_folder: Path,
) -> None:
    version(model_folder, VIEWS, history=6)
    version(model_folder, VIEWS, number=2, history=6, ignores=["VIEW", "PURCHASE"])
    triton = Answering(model_folder)
    trial = await try_out(triton, "recommender", model_folder, stable=1, candidate=2, bounds=Bounds())
    assert "4 golden requests answered as expected; not compared" in str(trial)
    assert all(number == "2" for number, _ in triton.asked)
