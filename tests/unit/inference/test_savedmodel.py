"""The backend's SavedModel: what a run computes, and what it does not."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from inference.tensorflow_backend.savedmodel import SavedModel, WrongInput, open_session


class Brittle(tf.Module):  # type: ignore[misc]  # tensorflow has no type information
    """`table` cannot be computed for a place that the table does not have; `double` always can."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int32, "place")])
    def serve(self, place: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"double": 2 * place, "table": tf.gather(tf.constant([10.0, 20.0]), place)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("brittle"))
    model = Brittle()
    tf.saved_model.save(model, folder, signatures={"recommend": model.serve})
    return folder


@pytest.mark.parametrize("inter_op_threads", [0, 1])
def test_an_output_that_nobody_asked_for_is_not_computed(folder: str, inter_op_threads: int) -> None:
    session = open_session(inter_op_threads=inter_op_threads)
    model = SavedModel(folder, "recommend", session, on_calling_thread=inter_op_threads == 1)
    try:
        assert model.run([np.array([[7]], np.int32)], {"double"})["double"].tolist() == [[14]]
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.run([np.array([[7]], np.int32)], {"double", "table"})
        assert model.run([np.array([[1]], np.int32)], {"table"})["table"].tolist() == [[20.0]]
    finally:
        model.close()


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((3, 1), np.int64), "place: must be int32, not int64"),
        (np.zeros((3, 2), np.int32), "place: must have shape [-1, 1], not [3, 2]"),
        (np.zeros(3, np.int32), "place: must have shape [-1, 1], not [3]"),
        (np.zeros((), np.int32), "place: must have shape [-1, 1], not []"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_what_would(
    folder: str, array: NDArray[Any], problem: str
) -> None:
    model = SavedModel(folder, "recommend", open_session())
    try:
        for rows in (0, 1, 3):
            model.check("place", np.zeros((rows, 1), np.int32))
        with pytest.raises(WrongInput, match=f"^{re.escape(problem)}$"):
            model.check("place", array)
    finally:
        model.close()
