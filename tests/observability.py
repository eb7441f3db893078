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
OF_SHADOW_CALLS = {
    "riptide_shadow_overlap_ratio_sum",
    "riptide_shadow_overlap_ratio_count",
    "riptide_shadow_failures_total",
}
"""Metrics that are in a scrape only once a rollout has made shadow calls."""

# A variable in quotes is a label's value; Grafana puts in what was chosen.
_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
_NAME = re.compile(r"\$\{?(\w+)\}?")
_LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_IN_TEXT = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression, and where it stands."""

    place: str
    text: str
    labels: frozenset[str] = frozenset()
    """Labels that its result has to have: the panel's legend, or the alert's text, names them."""

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

    @property
    def selectors(self) -> Iterator[Selector]:
        """The metrics that it asks for.

        Raises AssertionError: it wants a label, for `labels`, `by` or `on`, that what it takes it from cannot
        have, whatever is scraped.
        """
        return _selectors(self.parsed, self.place, self.labels)


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric that is asked for."""

    place: str
    metric: str
    labels: frozenset[str]
    """Labels that its matchers name, and those that what is made of it needs: to group, to match, to name."""
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
    return [
        Expression(
            rule.get("record") or rule["alert"],
            rule["expr"],
            frozenset(_IN_TEXT.findall(" ".join(rule.get("annotations", {}).values()))),
        )
        for rule in load_rules()
    ]


def dashboard_expressions() -> list[Expression]:
    """Those of panels, and those that the choices of the dashboard's variables come from."""
    dashboard = load_dashboard()
    panels = [
        # The number too: rows have panels of the same title.
        Expression(
            f"panel {panel['id']}, {panel['title']}",
            target["expr"],
            frozenset(_LEGEND.findall(target["legendFormat"])),
        )
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
    expressions = [*rule_expressions(), *dashboard_expressions()]
    return [selector for expression in expressions for selector in expression.selectors]


def scraped() -> list[Selector]:
    """Those that a scrape has to have: not those that Prometheus or a rule makes."""
    recorded = {rule["record"] for rule in load_rules() if "record" in rule}
    return [selector for selector in selectors() if selector.metric not in recorded | OF_PROMETHEUS]


def _selectors(node: Any, place: str, needed: frozenset[str]) -> Iterator[Selector]:
    """The selectors below a node; `needed`: the labels that its result has to have."""
    cannot = sorted(label for label in needed if not _can_have(node, label))
    assert not cannot, f"{place}: {', '.join(cannot)}: no label of {node.prettify()}"
    match node:
        case promql.VectorSelector():
            matchers = node.matchers.matchers
            equal = {(m.name, m.value) for m in matchers if m.op == promql.MatchOp.Equal}
            among = {(m.name, value) for m in matchers for value in m.value.split("|")}
            yield Selector(
                place,
                node.name,
                frozenset(m.name for m in matchers) | needed,
                frozenset((name, value) for name, value in equal if name not in TARGET_LABELS),
                frozenset((name, value) for name, value in among if name not in TARGET_LABELS),
            )
        case promql.MatrixSelector():
            yield from _selectors(node.vector_selector, place, needed)
        case promql.AggregateExpr():
            goes_by, labels = _grouping(node)
            yield from _selectors(node.expr, place, labels if goes_by else needed | labels)
        case promql.BinaryExpr():
            for side, of_side in zip((node.lhs, node.rhs), _needed_of_sides(node, needed), strict=True):
                yield from _selectors(side, place, of_side)
        case promql.Call():
            own = {"le"} if node.func.name == "histogram_quantile" else set[str]()
            for argument in node.args:
                yield from _selectors(argument, place, frozenset() if _is_number(argument) else needed | own)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from _selectors(node.expr, place, needed)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass


def _can_have(node: Any, label: str) -> bool:
    """Whether a node's result can have a label. Of a metric that is scraped all is taken to be possible."""
    match node:
        case promql.VectorSelector():
            assert node.name, "a selector without a metric"
            # What a rule records begins with its labels.
            return ":" not in node.name or label in node.name.split(":")[0].split("_")
        case promql.MatrixSelector():
            return _can_have(node.vector_selector, label)
        case promql.AggregateExpr():
            goes_by, labels = _grouping(node)
            return label in labels if goes_by else label not in labels and _can_have(node.expr, label)
        case promql.BinaryExpr():
            return _pair_can_have(node, label)
        case promql.Call():
            name = node.func.name
            assert name not in {"label_replace", "label_join"}, f"{name} is new here"
            # Of what is absent only the values that were asked for are known.
            gone = name.startswith("absent") or (name == "histogram_quantile" and label == "le")
            return not gone and any(_can_have(argument, label) for argument in node.args)
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _can_have(node.expr, label)
        case promql.NumberLiteral() | promql.StringLiteral():
            return False
        case _:
            raise AssertionError(f"{type(node).__name__} is new here")


def _grouping(node: Any) -> tuple[bool, frozenset[str]]:
    """Whether an aggregation goes by labels, or without them; and which. Without any word it goes by none."""
    assert str(node.op) not in {"topk", "bottomk", "count_values", "limitk"}, f"{node.op} is new here"
    if node.modifier is None:
        return True, frozenset()
    return node.modifier.type == promql.AggModifierType.By, frozenset(node.modifier.labels)


def _is_number(node: Any) -> bool:
    match node:
        case promql.ParenExpr() | promql.UnaryExpr():
            return _is_number(node.expr)
        case promql.Call():
            return node.func.name in {"scalar", "time", "pi"}
        case _:
            return isinstance(node, promql.NumberLiteral | promql.StringLiteral)


# How the series of a binary expression's two sides find each other, and which labels the result has:
# https://prometheus.io/docs/prometheus/latest/querying/operators/#vector-matching


def _matching(node: Any) -> tuple[bool, frozenset[str]]:
    """Whether the sides match on labels, or on all but them; and which."""
    matching = node.modifier and node.modifier.matching
    if not matching:
        return False, frozenset()
    return matching.type == promql.LabelModifierType.Include, frozenset(matching.labels)


def _many(node: Any) -> str:
    """The side of which several series may match one of the other: it gives the result its labels."""
    card = node.modifier and node.modifier.card
    if card == promql.VectorMatchCardinality.ManyToOne:
        return "lhs"
    return "rhs" if card == promql.VectorMatchCardinality.OneToMany else ""


def _pair_can_have(node: Any, label: str) -> bool:
    left, right = _can_have(node.lhs, label), _can_have(node.rhs, label)
    if _is_number(node.lhs) or _is_number(node.rhs):
        return left or right
    if (operator := str(node.op)) in {"and", "unless"}:
        return left
    if operator == "or":
        return left and right
    if many := _many(node):
        return label in node.modifier.group_labels or (left if many == "lhs" else right)
    matches_on, labels = _matching(node)
    return label in labels if matches_on else label not in labels and left and right


def _needed_of_sides(node: Any, needed: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The labels that the two sides have to have, for the result of a binary expression to have `needed`."""
    nothing = frozenset[str]()
    if _is_number(node.lhs) or _is_number(node.rhs):
        return nothing if _is_number(node.lhs) else needed, nothing if _is_number(node.rhs) else needed
    operator = str(node.op)
    matches_on, labels = _matching(node)
    if many := _many(node):
        brought = frozenset(node.modifier.group_labels)
        of_many, of_one = (needed - brought) | labels, brought | (labels if matches_on else needed - labels)
        return (of_many, of_one) if many == "lhs" else (of_one, of_many)
    if matches_on:
        of_left, of_right = labels, labels
    else:
        # One of them has what is ignored, else it would be for nothing.
        of_left = frozenset(label for label in labels if _can_have(node.lhs, label))
        of_right = (needed | labels) - of_left
    match operator:
        case "or":
            return needed | of_left, needed | of_right
        case "and" | "unless":
            return needed | of_left, of_right
        case _:
            return (of_left, of_right) if matches_on else (needed | of_left, of_right)
