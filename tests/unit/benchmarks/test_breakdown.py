"""Where the time of a call goes."""

from __future__ import annotations

import json

import pytest

from benchmarks import breakdown
from benchmarks.errors import BenchmarkError
from benchmarks.triton_statistics import Statistics, parse

STAGES = {"queue": 0.1, "features": 0.05, "model": 2.0, "page": 0.1, "total": 2.5}


def statistics(requests: int, **milliseconds: float) -> Statistics:
    """As after so many requests, each with these milliseconds."""
    return Statistics(requests, requests, requests, {k: v * requests / 1000 for k, v in milliseconds.items()})


TRITON = statistics(10, success=1.4, queue=0.2, compute_input=0.05, compute_infer=1.0, compute_output=0.1)


def test_the_parts_add_up_to_what_the_caller_saw() -> None:
    parts = breakdown.breakdown(3.2, STAGES, TRITON, tensorflow_ms=0.4)
    assert sum(parts.values()) == pytest.approx(3.2)


def test_each_part_is_what_is_left_between_two_measurements() -> None:
    parts = breakdown.breakdown(3.2, STAGES, TRITON, tensorflow_ms=0.4)
    assert parts == {
        breakdown.CALLER_HOP: pytest.approx(0.7),
        breakdown.GATEWAY: pytest.approx(0.5),
        breakdown.TRITON_HOP: pytest.approx(0.6),
        breakdown.QUEUE: pytest.approx(0.2),
        breakdown.OTHER: pytest.approx(0.05),
        breakdown.BACKEND: pytest.approx(0.75),
        breakdown.TENSORFLOW: pytest.approx(0.4),
    }


def test_a_batch_between_two_sizes_takes_what_lies_between_them() -> None:
    measured = {"1": 0.1, "4": 0.4, "16": 1.0}
    assert breakdown.at_batch(measured, 4) == pytest.approx(0.4)
    assert breakdown.at_batch(measured, 2) == pytest.approx(0.2)
    assert breakdown.at_batch(measured, 10) == pytest.approx(0.7)


def test_only_what_came_since_counts() -> None:
    before = statistics(4, success=100.0, queue=1.0, compute_input=0, compute_infer=0, compute_output=0)
    after = statistics(14, success=100.0, queue=1.0, compute_input=0, compute_infer=0, compute_output=0)
    since = after - before
    assert since.requests == 10
    assert since.mean_ms("success") == pytest.approx(100.0)


def test_tritons_answer_is_read_and_versions_are_added_up() -> None:
    def of(count: int) -> dict[str, object]:
        parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        return {
            "execution_count": str(count),
            "inference_count": 3 * count,
            "inference_stats": {part: {"count": count, "ns": str(count * 2_000_000)} for part in parts},
        }

    found = parse(json.dumps({"model_stats": [of(1), of(2)]}).encode())
    assert (found.requests, found.executions, found.rows) == (3, 3, 9)
    assert found.mean_ms("queue") == pytest.approx(2.0)


def test_an_answer_of_another_kind_is_an_error() -> None:
    with pytest.raises(BenchmarkError):
        parse(b'{"error": "no such model"}')
