"""The service level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtest.slo import DEFAULT, ServiceLevel, read_service_level

KEPT: dict[str, Any] = {
    "p50_ms": 10.0,
    "p99_ms": 100.0,
    "error_rate": 0.01,
    "degraded_rate": 0.1,
    "achieved": 0.9,
}


def test_the_one_that_comes_with_riptide_asks_for_everything() -> None:
    assert None not in read_service_level(DEFAULT).model_dump().values()


def test_a_bound_that_is_just_met_is_kept() -> None:
    assert ServiceLevel(**KEPT).breaches(**KEPT) == []


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("p50_ms", 10.1, "p50_ms: 10.1 ms, at most 10 ms wanted"),
        ("p99_ms", 100.1, "p99_ms: 100.1 ms, at most 100 ms wanted"),
        ("error_rate", 0.02, "error_rate: 2.000%, at most 1.000% wanted"),
        ("degraded_rate", 0.2, "degraded_rate: 20.000%, at most 10.000% wanted"),
        ("achieved", 0.8, "achieved: 80.0% of what was due, at least 90.0% wanted"),
    ],
)
def test_each_bound_that_is_broken_is_named(name: str, value: float, line: str) -> None:
    measured = KEPT | {name: value}
    assert ServiceLevel(**KEPT).breaches(**measured) == [line]
    assert ServiceLevel(**dict.fromkeys(KEPT)).breaches(**measured) == []


def test_in_a_closed_loop_nothing_is_due_that_is_not_answered() -> None:
    assert ServiceLevel(achieved=1.0).breaches(**KEPT | {"achieved": None}) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("p95_ms = 3", "p95_ms: there is no such bound; there are p50_ms, p99_ms, "),
        ("p50_ms = 0", "p50_ms: Input should be greater than 0"),
        ("error_rate = 5", "error_rate: Input should be less than or equal to 1"),
        ("p99_ms = nan", "p99_ms: "),
        ("p99_ms =", "Invalid value"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "level.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"level\.toml: ") as caught:
        read_service_level(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
