"""What `deploy/observability/` asks Prometheus for, taken apart: the expressions of dashboard and rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "observability"
DASHBOARD = FOLDER / "grafana" / "riptide.json"

TARGET_LABELS = {"job", "instance"}
"""Prometheus gives them to what it scrapes; no scrape has them."""
OF_PROMETHEUS = {"up"}
"""Metrics that Prometheus makes itself."""

# A variable in quotes is a label's value; Grafana puts in what was chosen.
_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
_NAME = re.compile(r"\$\{?(\w+)\}?")
_LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression, and where it stands."""

    place: str
    text: str
    legend: frozenset[str] = frozenset()
    """Labels that the panel's legend names."""

    @property
    def parsed(self) -> Any:
        """Raises ValueError: it is no PromQL."""
        text = self.text
        for name, stands_for in _VARIABLES.items():
            text = text.replace(name, stands_for)
        return promql.parse(_NAME.sub(".*", text))

    @property
    def variables(self) -> set[str]:
        """Grafana's variables in it, but for those that Grafana brings."""
        return {name for name in _NAME.findall(self.text) if f"${name}" not in _VARIABLES}


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric that is asked for."""

    place: str
    metric: str
    labels: frozenset[str]
    """Labels that its matchers name, or that it is grouped by."""
    equal: frozenset[tuple[str, str]]
    """Labels that have to have one value, but for those of the target."""
    among: frozenset[tuple[str, str]]
    """Labels and the values that they may have, or may not: the parts of a regular expression."""

    def met_by(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a sample of a scrape has all that is asked for by name, and the values asked for."""
        has = set(labels)
        return (
            name == self.metric and self.labels - TARGET_LABELS <= has and self.equal <= set(labels.items())
        )


def load_rules() -> list[dict[str, Any]]:
    """All rules, in order."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def load_cases() -> list[dict[str, Any]]:
    """All cases of the rules' own tests."""
    files = sorted(FOLDER.glob("*_test.yml"))
    return [case for file in files for case in yaml.safe_load(file.read_text())["tests"]]


def load_dashboard() -> dict[str, Any]:
    """The dashboard."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def rule_expressions() -> list[Expression]:
    """Those of recording rules and alerts."""
    return [Expression(rule.get("record") or rule["alert"], rule["expr"]) for rule in load_rules()]


def dashboard_expressions() -> list[Expression]:
    """Those of panels, and those that the choices of the dashboard's variables come from."""
    dashboard = load_dashboard()
    panels = [
        Expression(panel["title"], target["expr"], frozenset(_LEGEND.findall(target["legendFormat"])))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    queries = [
        (variable["name"], re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]))
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    choices = [
        Expression(f"variable {name}", f"count by ({found[2]}) ({found[1]})")
        for name, found in queries
        if found
    ]
    assert len(choices) == len(queries), "a variable that is not label_values(…)"
    return panels + choices


@cache
def selectors() -> list[Selector]:
    """Every metric that any expression asks for."""
    return [
        selector
        for expression in [*rule_expressions(), *dashboard_expressions()]
        for selector in _selectors(expression.parsed, expression.place, frozenset())
    ]


def scraped() -> list[Selector]:
    """Those that a scrape has to have: not those that Prometheus or a rule makes."""
    recorded = {rule["record"] for rule in load_rules() if "record" in rule}
    return [selector for selector in selectors() if selector.metric not in recorded | OF_PROMETHEUS]


def _selectors(node: Any, place: str, grouped: frozenset[str]) -> Iterator[Selector]:
    """The selectors below a node; `grouped`: what the aggregations above it go by."""
    match node:
        case promql.VectorSelector():
            assert node.name, f"{place}: a selector without a metric"
            matchers = node.matchers.matchers
            equal = {(m.name, m.value) for m in matchers if m.op == promql.MatchOp.Equal}
            among = {(m.name, value) for m in matchers for value in m.value.split("|")}
            yield Selector(
                place,
                node.name,
                frozenset(m.name for m in matchers) | grouped,
                frozenset((name, value) for name, value in equal if name not in TARGET_LABELS),
                frozenset((name, value) for name, value in among if name not in TARGET_LABELS),
            )
        case promql.MatrixSelector():
            yield from _selectors(node.vector_selector, place, grouped)
        case promql.AggregateExpr():
            own = frozenset(node.modifier.labels) if node.modifier else frozenset[str]()
            yield from _selectors(node.expr, place, grouped | own)
        case promql.BinaryExpr():
            yield from _selectors(node.lhs, place, grouped)
            yield from _selectors(node.rhs, place, grouped)
        case promql.Call():
            for argument in node.args:
                yield from _selectors(argument, place, grouped)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _selectors(node.expr, place, grouped)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            raise AssertionError(f"{place}: {type(node).__name__} is new here")
