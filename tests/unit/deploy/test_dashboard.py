"""The dashboard can be read; its fields are those of Grafana's own models."""

from __future__ import annotations

import json
import tomllib
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.observability import FOLDER, dashboard_expressions, load_dashboard

SLO = tomllib.loads((FOLDER.parents[1] / "loadtest" / "slo.toml").read_text())
DASHBOARD = load_dashboard()
EVERYTHING = DASHBOARD["panels"]
PANELS = [panel for panel in EVERYTHING if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def passed_over(dashboard: dict[str, Any]) -> list[str]:
    """Where what was written is not what Grafana's models have read: what they do not know they pass over."""
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    missing = object()

    def differing(written: Any, read: Any, place: str) -> list[str]:
        if isinstance(written, dict) and isinstance(read, dict):
            pairs = [(f"{place}.{key}", each, read.get(key, missing)) for key, each in written.items()]
        elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
            pairs = [(f"{place}[{i}]", *both) for i, both in enumerate(zip(written, read, strict=True))]
        else:
            return [place] if written != read else []
        return [found for name, one, other in pairs for found in differing(one, other, name)]

    return differing(dashboard, read, "")


def test_grafana_knows_every_field_of_it() -> None:
    assert passed_over(DASHBOARD) == []


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "refesh"),
        (".templating.list[1]", "querry"),
        (".panels[7]", "discription"),
        (".panels[7].targets[0]", "legendFromat"),
        (".panels[7].options.tooltip", "sorting"),
        (".panels[7].fieldConfig.defaults", "units"),
    ],
)
def test_a_misspelt_field_of_it_would_be_seen(place: str, name: str) -> None:
    dashboard = json.loads(json.dumps(DASHBOARD))
    node = dashboard
    for step in place.replace("[", ".").replace("]", "").split(".")[1:]:
        node = node[int(step) if step.isdigit() else step]
    node[name] = "x"
    assert passed_over(dashboard) == [f"{place}.{name}"]


def test_panels_are_of_the_kinds_that_grafana_brings() -> None:
    assert {panel["type"] for panel in EVERYTHING} <= {"row", "stat", "timeseries", "heatmap"}


def test_it_has_its_rows_in_order() -> None:
    assert [panel["title"] for panel in EVERYTHING if panel["type"] == "row"] == [
        "Overview",
        "Latency by stage",
        "Batches",
        "Versions and cohorts",
        "Degraded pages",
        "Feature store and freshness",
        "Triton",
    ]


def test_panels_lie_within_the_grid_beside_each_other_and_have_an_id_each() -> None:
    for one, other in combinations(EVERYTHING, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, f"{one['title']} and {other['title']} overlap"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in EVERYTHING)
    assert len({panel["id"] for panel in EVERYTHING}) == len(EVERYTHING)


def test_a_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {
            "s",
            "reqps",
            "cps",
            "percentunit",
            "bytes",
            "none",
        }
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references)), panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_every_panel_takes_the_prometheus_that_is_chosen() -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*PANELS, *(variable for variable in VARIABLES.values() if variable["type"] == "query")]
    assert [each for each in asking if each["datasource"] != chosen] == []


def test_an_expression_takes_the_chosen_targets_and_knows_its_variables() -> None:
    for expression in dashboard_expressions():
        assert expression.variables <= VARIABLES.keys(), expression
        if not expression.place.startswith("variable "):
            job = "triton_job" if "nv_" in expression.text else "job"
            assert f'{{job="${job}"' in expression.text, expression


def test_the_service_level_is_drawn_where_it_is() -> None:
    drawn = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for panel in PANELS
        if "Dashed: " in panel["description"] and "service level" in panel["description"]
    }
    assert drawn == {
        "Failed calls": SLO["error_rate"],
        "Degraded pages": SLO["degraded_rate"],
        "Recommend: time to answer": SLO["p99_ms"] / 1000,
    }


def test_grafana_is_told_of_prometheus_and_of_the_folder_of_the_dashboard() -> None:
    provisioning = FOLDER / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "riptide.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    scraping = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraping["scrape_interval"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "riptide.yml").read_text())["providers"]
    assert provider["options"]["path"] == "${DASHBOARDS}"
    assert "DASHBOARDS=$PWD/deploy/observability/grafana" in (FOLDER / "README.md").read_text()
