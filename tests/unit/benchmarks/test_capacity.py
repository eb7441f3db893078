"""The search for the highest rate."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.capacity import Capacity, Trial, main, markdown, plot, search, trial_of


def trial(rate: float, verdict: str = "PASS") -> Trial:
    reasons = [] if verdict == "PASS" else [f"p99_ms: broken at {rate:.0f}"]
    return Trial(rate, verdict, reasons, rate, 5.0, 20.0, 0.0, 0.0, 0.3)


@given(st.floats(2, 50_000), st.floats(1, 50_000), st.floats(0.02, 0.5))
def test_what_is_found_is_kept_and_as_near_to_the_limit_as_was_asked(
    limit: float, start: float, precision: float
) -> None:
    found = search(lambda rate: trial(rate, "PASS" if rate <= limit else "FAIL"), start, precision)
    assert found.rate <= limit <= found.rate * (1 + precision)
    assert found.bound.startswith("p99_ms: broken at ")
    assert len(found.trials) < 80


def test_what_held_once_and_not_again_is_no_capacity() -> None:
    tried: list[float] = []

    def unsteady(rate: float) -> Trial:
        tried.append(rate)
        # At 200 it holds the first time only.
        return trial(rate, "PASS" if rate <= 100 or (rate == 200 and tried.count(200) == 1) else "FAIL")

    found = search(unsteady, 100, 1.0)
    assert found.rate == 100
    assert tried == [100, 200, 400, 400, 200, 100]


def test_what_broke_once_and_not_again_is_no_bound() -> None:
    tried: list[float] = []

    def hiccup(rate: float) -> Trial:
        tried.append(rate)
        return trial(rate, "PASS" if rate <= 300 and tried.count(200) != 1 else "FAIL")

    assert search(hiccup, 100, 1.0).rate == 200
    assert tried == [100, 200, 200, 400, 400, 200]


def test_where_nothing_holds_nothing_is_found() -> None:
    found = search(lambda rate: trial(rate, "FAIL"), 64, 0.1)
    assert found.rate == 0
    assert [each.rate for each in found.trials] == [rate for rate in (64, 32, 16, 8, 4, 2, 1) for _ in "12"]
    assert (
        markdown(found, 5).count("No rate that was tried keeps the service level: p99_ms: broken at 1") == 1
    )


def test_a_generator_that_can_do_no_more_ends_the_search_and_is_named() -> None:
    found = search(lambda rate: trial(rate, "PASS" if rate < 300 else "INVALID"), 100, 1.0)
    assert (found.rate, found.bound) == (200, "p99_ms: broken at 400")
    table = markdown(found, 5)
    assert "**200 pages a second** keep the service level; above: p99_ms: broken at 400" in table
    assert "| 400 | 400 | 5.0 | 20.0 | 0.00% | 0.00% | 30% | INVALID |" in table


def test_a_trial_is_what_the_report_of_the_run_says() -> None:
    report = {
        "verdict": "FAIL",
        "reasons": ["p50_ms: 60.0 ms, at most 50 ms wanted"],
        "pages": {"count": 10, "per_s": 99.5, "p50_ms": 60.0, "p99_ms": 80.0},
        "degraded_rate": 0.25,
        "error_rate": 0.5,
        "generator": [0.1, 0.4],
    }
    expected = Trial(100.0, "FAIL", report["reasons"], 99.5, 60.0, 80.0, 0.25, 0.5, 0.4)  # type: ignore[arg-type]
    assert trial_of(100.0, report) == expected


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    plot(Capacity(200, "", [trial(200), trial(100), trial(400, "FAIL"), trial(0)]), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_set_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["capacity", "--slo", "mine", "-u200"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "-u200: -u is set here" in capsys.readouterr().err
