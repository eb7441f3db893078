"""Whether Triton, called straight, answers what it should."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as triton

from benchmarks.deployment import Deployment
from benchmarks.triton_floor import answers_page, batches, raw_model_infer
from features.settings import Settings
from inference.environment import probe
from rollout.publish import publish

PAGE = np.arange(1, 21)


def answer(keys: list[int]) -> triton.ModelInferResponse:
    outputs = [triton.ModelInferResponse.InferOutputTensor(name=name) for name in ("scores", "item_keys")]
    raw = [np.zeros(len(keys), np.float32).tobytes(), np.array(keys, np.int64).tobytes()]
    return triton.ModelInferResponse(outputs=outputs, raw_output_contents=raw)


@pytest.mark.parametrize(
    ("keys", "right"),
    [
        (range(1, 21), True),
        ([2, 1, *range(3, 21)], True),  # a tie
        ([*range(1, 10), 99], False),
        ([], False),
    ],
)
def test_an_answer_is_right_if_its_best_items_are_the_golden_ones(keys: list[int], right: bool) -> None:
    assert answers_page(answer(list(keys)), PAGE) is right


@pytest.fixture(scope="module")
def deployment(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("floor")
    settings = Settings(state_dir=folder / "state", model_repository=folder / "repository", store="lmdb")
    publish(settings, probe(settings.triton_python), export)
    return cast("Deployment", SimpleNamespace(settings=settings, triton=None))


def test_all_rows_that_are_sent_have_a_history(deployment: Deployment, export: Path) -> None:
    requests = [
        triton.ModelInferRequest.FromString(body) for body in raw_model_infer(deployment).target.bodies
    ]
    with np.load(export / "golden.npz") as golden:
        assert len(requests) == (golden["in:history_keys"] != 0).any(axis=1).sum() > 0
        assert len(requests) < len(golden["in:history_keys"])  # who has none is among the golden ones
    for request in requests:
        place = [tensor.name for tensor in request.inputs].index("history_keys")
        assert np.frombuffer(request.raw_input_contents[place], np.int64).any()


def test_batches_have_one_row_more_each_and_ask_for_nothing_special(deployment: Deployment) -> None:
    for rows, body in enumerate(batches(deployment, 9), start=1):
        request = triton.ModelInferRequest.FromString(body)
        raw = dict(zip((tensor.name for tensor in request.inputs), request.raw_input_contents, strict=True))
        assert [tensor.shape[0] for tensor in request.inputs] == [rows] * len(raw)
        assert set(raw["allowed_categories"]) == {1}
        assert np.frombuffer(raw["user_vector_fresh"], np.int32).tolist() == [1] * rows
        assert np.frombuffer(raw["history_keys"], np.int64).reshape(rows, -1).any(axis=1).all()
