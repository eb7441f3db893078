"""The alerts agree with the service level, are tested, and are told of in the README."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import grpc
import pytest
import yaml

from features.store import StoreFull, StoreUnavailable
from gateway import errors
from tests.observability import FOLDER, load_cases, load_rules, selectors

SLO = tomllib.loads((FOLDER.parents[1] / "loadtest" / "slo.toml").read_text())
RULES = load_rules()
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
SLIS = ["failed-calls", "degraded-pages", "slow-pages"]


def recorded(name: str) -> dict[str, str]:
    """The rules of that name: indicator → expression."""
    return {rule["labels"]["sli"]: rule["expr"] for rule in RULES if rule.get("record") == name}


def test_the_objectives_are_those_of_the_service_level() -> None:
    assert recorded("sli:riptide_objective:ratio") == {
        "failed-calls": f"vector({SLO['error_rate']})",
        "degraded-pages": f"vector({SLO['degraded_rate']})",
        "slow-pages": "vector(0.01)",  # the p99: one of 100 may take longer
    }
    bounds = {value for selector in selectors() for label, value in selector.equal if label == "le"}
    assert bounds == {f"{SLO['p99_ms'] / 1000}"}


def test_every_indicator_has_calls_and_bad_calls() -> None:
    for name in (
        "sli:riptide_objective:ratio",
        "job_sli:riptide_calls:rate5m",
        "job_sli:riptide_bad_calls:rate5m",
    ):
        assert list(recorded(name)) == SLIS


def test_what_is_left_out_of_failed_calls_are_the_callers_faults_and_no_others() -> None:
    of_callers = [
        errors.InvalidRequest("limit", "too large"),
        errors.NotFound(),
        errors.NotAnOperator(),
        errors.NotLoaded(),
    ]
    of_ours = [errors.Overloaded(), StoreFull(), StoreUnavailable(), TimeoutError(), ValueError()]
    left_out = {errors.status_of(error)[0].name for error in of_callers} | {grpc.StatusCode.CANCELLED.name}
    assert left_out.isdisjoint(errors.status_of(error)[0].name for error in of_ours)
    named = {
        frozenset(value for label, value in selector.among if label == "code")
        for selector in selectors()
        if selector.metric == "riptide_requests_total"
    }
    # Besides: any code, any but OK, and what callers give up.
    assert named == {
        frozenset(left_out),
        frozenset(left_out | {"OK"}),
        frozenset(),
        frozenset({"OK"}),
        frozenset({"CANCELLED"}),
    }


def test_a_burn_rate_alert_wants_a_long_and_a_short_window_and_enough_calls() -> None:
    """The SRE workbook's for 30 days: 2, 5 and 10 % of the budget are gone by then."""
    shapes = {
        "RiptideBudgetBurnsFast": ("1h", "5m", "14.4", "page"),
        "RiptideBudgetBurns": ("6h", "30m", "6", "page"),
        "RiptideBudgetBurnsSlowly": ("3d", "6h", "1", "ticket"),
    }
    for name, (long, short, times, severity) in shapes.items():
        assert " ".join(ALERTS[name]["expr"].split()) == (
            f"job_sli:riptide_budget_burn:ratio_rate{long} > {times} "
            f"and job_sli:riptide_budget_burn:ratio_rate{short} > {times} "
            f"and job_sli:riptide_bad_calls:increase{long} >= 10"
        )
        assert ALERTS[name]["labels"] == {"severity": severity}


def test_a_window_is_as_long_as_its_name_says() -> None:
    for rule in RULES:
        if rule.get("record", "sli:").startswith("job_"):
            [named] = re.findall(r"\d+[mhd]$", rule["record"])
            # What is recorded over a window may also be a quotient of such.
            windows = re.findall(r"\[(\w+)\]", rule["expr"]) or re.findall(r":rate(\w+)", rule["expr"])
            assert set(windows) == {named}


def test_sums_of_rates_become_calls_by_the_interval_of_their_group() -> None:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    [interval] = [group["interval"] for group in groups if group["name"] == "riptide-service-level"]
    factors = {rule["expr"].split(" * ")[0] for rule in RULES if ":increase" in rule.get("record", "")}
    assert {f"{factor}s" for factor in factors} == {interval}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_to_do_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert name.startswith("Riptide")
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_section_in_the_runbook(name: str) -> None:
    path, anchor = ALERTS[name]["annotations"]["runbook"].split("#")
    assert FOLDER.parents[1] / path == FOLDER / "README.md"
    headings = re.findall(r"^#+ (.+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    wanted = set(SLIS) if anchor == "{{ $labels.sli }}" else {anchor}
    assert wanted <= {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    fires = {
        bool(check.get("exp_alerts"))
        for case in load_cases()
        for check in case.get("alert_rule_test", ())
        if check["alertname"] == name
    }
    assert fires == {True, False}


def test_where_there_is_no_promtool_make_says_where_it_is_from(tmp_path: Path) -> None:
    make, installed = shutil.which("make"), tmp_path / ".installed"
    assert make
    installed.touch()
    done = subprocess.run(
        [make, f"OURS={tmp_path}", "PYTHON=none", "test-alerts"],
        cwd=FOLDER.parents[1], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "promtool is missing" in done.stderr
    assert "apt install prometheus" in done.stderr
