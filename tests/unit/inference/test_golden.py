"""When two answers count as the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.errors import UnfitModel
from inference.golden import Golden, difference, read_golden


@pytest.fixture
def golden() -> Golden:
    return Golden(
        {"history_keys": np.array([[1, 2]])},
        {
            "item_keys": np.array([[11, 12, 13, 0]]),
            "scores": np.array([[3.0, 2.0, 2.0, 0.0]], np.float32),
            "reason_keys": np.array([[1, 2, 1, 0]]),
            "user_vector": np.array([[0.5, -0.5]], np.float32),
        },
    )


def test_the_same_answers_agree(golden: Golden) -> None:
    assert difference(golden, golden.outputs) is None


def test_items_with_equal_scores_may_change_places(golden: Golden) -> None:
    swapped = {"item_keys": np.array([[11, 13, 12, 0]]), "scores": golden.outputs["scores"]}
    assert difference(golden, swapped) is None


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("item_keys", [[12, 11, 13, 0]], "item_keys: row 0, slot 0 is 12 instead of 11"),
        ("item_keys", [[11, 12, 13, 14]], "item_keys: row 0, slot 3"),
        ("item_keys", [[11, 12, 0, 13]], "item_keys: row 0, slot 2"),
        ("item_keys", [[0, 0, 0, 0]], "item_keys: all zeros"),
        ("item_keys", [[11, 12]], "item_keys: shape"),
        ("scores", np.array([[3.0, 2.0, 1.5, 0.0]], np.float32), "scores: row 0 is off by 0.5"),
        ("scores", np.array([[3.0, np.nan, 2.0, 0.0]], np.float32), "scores: row 0 holds values"),
        ("user_vector", np.array([[0.5, 0.5]], np.float32), "user_vector: row 0 is off by 1"),
    ],
)
def test_a_wrong_answer_is_named(golden: Golden, name: str, answer: object, says: str) -> None:
    found = difference(golden, dict(golden.outputs) | {name: np.asarray(answer)})
    assert found is not None
    assert found.startswith(says)


def test_a_page_with_diversity_is_in_no_order_of_scores_and_must_be_in_the_same_one() -> None:
    golden = Golden(
        {"history_keys": np.array([[1, 2]])},
        {
            "item_keys": np.array([[11, 12, 13, 14]]),
            "scores": np.array([[0.9, 0.2, 0.5, 0.5]], np.float32),
            "reason_keys": np.array([[1, 2, 1, 1]]),
            "user_vector": np.array([[0.5, -0.5]], np.float32),
        },
    )
    assert difference(golden, golden.outputs) is None
    assert difference(golden, {"item_keys": np.array([[11, 12, 14, 13]])}) is None
    by_score = {"item_keys": np.array([[11, 13, 14, 12]])}
    assert difference(golden, by_score) == "item_keys: row 0, slot 1 is 13 instead of 12"
    foreign = {"item_keys": np.array([[11, 99, 13, 14]])}
    assert difference(golden, foreign) == "item_keys: row 0, slot 1 is 99 instead of 12"


def test_wrong_reasons_are_named(golden: Golden) -> None:
    wrong = dict(golden.outputs) | {"reason_keys": np.array([[2, 1, 2, 0]])}
    assert difference(golden, wrong) == "reason_keys: only 25% are the expected ones"


def write(path: Path, golden: Golden, **changes: object) -> Path:
    arrays = {f"in:{name}": array for name, array in golden.inputs.items()}
    arrays |= {f"out:{name}": array for name, array in golden.outputs.items()}
    np.savez(path, **(arrays | changes))  # type: ignore[arg-type]  # numpy types **kwds as its own flag
    return path


def test_a_file_is_read_back(tmp_path: Path, golden: Golden) -> None:
    read = read_golden(write(tmp_path / "golden.npz", golden))
    assert read.rows == 1
    assert difference(golden, read.outputs) is None


def test_expectations_that_prove_nothing_are_refused(tmp_path: Path, golden: Golden) -> None:
    file = write(tmp_path / "golden.npz", golden, **{"out:item_keys": np.zeros((1, 4), np.int64)})
    with pytest.raises(UnfitModel, match="all zeros"):
        read_golden(file)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden.npz").write_text("text")
    with pytest.raises(UnfitModel, match="cannot be read as golden requests"):
        read_golden(tmp_path / "golden.npz")
