"""Ratios within a round, and the tables that they stand in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.growth_plot import plot
from benchmarks.observed import Observed
from benchmarks.section import Curve, Grid, Measured, Ratio, Section, Spread, spread
from benchmarks.tables import as_json, markdown


def measured(number: int, server: str, answered: int, load: str = "64 in flight", **more: Any) -> Measured:
    """One second of a server that answers so many calls, each in 10 ms unless told otherwise."""
    p50 = more.pop("p50_ms", 10.0)
    return Measured(
        number, server, load, Observed("h2load, 4", answered, 0, 1.0, p50, p50, 20.0, 0.5), **more
    )


def section(*rows: Measured, ratios: tuple[Ratio, ...] = ()) -> Section:
    return Section("Throughput", list(rows), list(ratios))


OURS, FLOOR = ("gateway", "64 in flight"), ("floor", "64 in flight")


def test_a_ratio_is_taken_within_a_round_and_not_of_medians() -> None:
    """The machine is twice as fast in the second round: the ratio of both rounds is the same."""
    rows = [
        measured(1, "gateway", 70), measured(1, "floor", 100),
        measured(2, "floor", 200), measured(2, "gateway", 140),
        measured(3, "gateway", 80), measured(3, "floor", 100),
    ]  # fmt: skip
    assert Ratio("", OURS, FLOOR).spread(rows) == Spread(0.7, 0.7, 0.8)


def test_a_round_that_lacks_one_of_the_two_gives_no_ratio() -> None:
    rows = [measured(1, "gateway", 70), measured(2, "gateway", 50), measured(2, "floor", 100)]
    assert Ratio("", OURS, FLOOR).spread(rows) == Spread(0.5, 0.5, 0.5)
    assert Ratio("", OURS, ("nobody", "64 in flight")).spread(rows) is None


def test_a_ratio_of_another_figure_is_of_that_figure() -> None:
    rows = [measured(1, "gateway", 70, p50_ms=3.0), measured(1, "floor", 100, p50_ms=2.0)]
    assert Ratio("", OURS, FLOOR, "p50_ms").spread(rows) == Spread(1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("bounds", "value", "met"),
    [
        ({"at_least": 0.7}, 0.70, True),
        ({"at_least": 0.7}, 0.69, False),
        ({"at_most": 1.5}, 1.5, True),
        ({"at_most": 1.5}, 1.51, False),
        ({}, 9.0, None),
    ],
)
def test_a_bound_is_met_or_not(bounds: dict[str, float], value: float, met: bool | None) -> None:
    assert Ratio("", OURS, FLOOR, **bounds).met(value) is met  # type: ignore[arg-type]  # figure is none of them


def test_the_spread_is_median_lowest_and_highest() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([]) is None
    assert str(Spread(4736.2, 0.123456, 12.34)) == "4736 (0.123–12.3)"


def test_a_table_has_a_line_per_row_with_all_rounds_in_it() -> None:
    rows = [measured(number, "gateway", 100 * number, cpu_us={"gateway": 300.0}) for number in (1, 2, 3)]
    lines = markdown(section(*rows)).splitlines()
    assert lines[2].startswith("| server | load | generator, bodies | calls/s | p50 ms | p99 ms |")
    assert lines[4] == (
        "| gateway | 64 in flight | h2load, 4 | 200 (100–300) | 10 (10–10) | 20 (20–20) | "
        "gateway 300 (300–300) | 0.5 (0.5–0.5) | 0 | – |"
    )
    assert len(lines[4].split("|")) == len(lines[2].split("|")) == len(lines[3].split("|"))


def test_failures_that_only_the_server_sees_stand_in_the_table() -> None:
    row = measured(1, "gateway", 100, failed=7, degraded=2)
    assert markdown(section(row)).splitlines()[4].endswith("| 7 | 2 |")


def test_what_was_not_measured_is_a_dash_and_no_zero() -> None:
    rows = section(
        measured(1, "gateway", 100), ratios=(Ratio("beside the floor", OURS, FLOOR, at_least=0.7),)
    )
    rows.more = ["lag p99 s"]
    text = markdown(rows)
    assert "| – |" in text.splitlines()[4]
    assert "| beside the floor | – | ≥ 0.7 |  |" in text


def test_a_ratio_says_whether_what_was_wanted_is_met() -> None:
    rows = (measured(1, "gateway", 65), measured(1, "floor", 100))
    text = markdown(section(*rows, ratios=(Ratio("beside the floor", OURS, FLOOR, at_least=0.7),)))
    assert "| beside the floor | 0.65 (0.65–0.65) | ≥ 0.7 | no |" in text


def observed(answered: int, failed: int = 0, looked_at: int = 0, degraded: int = 0) -> Observed:
    return Observed("own", answered, failed, 1.0, 1.0, 1.0, 1.0, 0.5, looked_at=looked_at, degraded=degraded)


FINE = Measured(1, "floor", "64 in flight", observed(1000))


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Measured(1, "gateway", "64 in flight", observed(1000)), True),
        (Measured(1, "gateway", "64 in flight", observed(999, failed=1)), True),
        (Measured(1, "gateway", "64 in flight", observed(998, failed=2)), False),
        (Measured(1, "gateway", "64 in flight", observed(1000), failed=2), False),
        (Measured(1, "gateway", "64 in flight", observed(1000), degraded=1), True),
        (Measured(1, "gateway", "64 in flight", observed(1000), degraded=2), False),
        (Measured(1, "gateway", "64 in flight", observed(1000, looked_at=20, degraded=1)), False),
        (Measured(1, "gateway", "64 in flight", observed(1000, looked_at=20, degraded=1), degraded=0), True),
    ],
)
def test_a_row_with_more_than_a_thousandth_of_bad_calls_keeps_no_bound(row: Measured, met: bool) -> None:
    assert Ratio("", OURS, FLOOR, at_least=0.7).verdict([row, FINE]) is met
    assert Ratio("", FLOOR, OURS, at_least=0.7).verdict([row, FINE]) is met
    assert Ratio("", OURS, FLOOR).verdict([row, FINE]) is None


def test_what_was_not_measured_is_named_in_the_table_and_in_the_json() -> None:
    found = section(measured(1, "gateway", 65))
    found.failures.append("Ray Serve\ndid not start")
    assert "- Not all was measured: Ray Serve did not start" in markdown(found).splitlines()
    assert as_json(found)["failures"] == ["Ray Serve\ndid not start"]


def test_json_has_every_round_and_every_ratio() -> None:
    rows = (measured(1, "gateway", 65), measured(1, "floor", 100))
    found = section(*rows, ratios=(Ratio("beside the floor", OURS, FLOOR),))
    found.grids.append(Grid("more", ["a"], [["1"]]))
    read = json.loads(json.dumps(as_json(found)))
    assert [(one["server"], one["per_s"]) for one in read["measured"]] == [
        ("gateway", 65.0),
        ("floor", 100.0),
    ]
    assert read["ratios"][0]["spread"]["median"] == 0.65


def test_a_plot_is_drawn_of_what_was_measured_and_only_then(tmp_path) -> None:
    rows = section(measured(1, "10 items", 5, load="low"), measured(1, "100 items", 5, load="low"))
    assert not plot(tmp_path / "none.png", [rows])
    assert not (tmp_path / "none.png").exists()
    points = [(10.0, "10 items", "low"), (100.0, "100 items", "low"), (1000.0, "not measured", "low")]
    rows.curves.append(Curve("low", "items", points))
    assert plot(tmp_path / "growth.png", [rows])
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
