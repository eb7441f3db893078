"""What an expression asks of a metric is seen, and what its result cannot have is refused."""

from __future__ import annotations

import pytest

from tests.observability import Expression, dashboard_expressions, load_dashboard


def asks(text: str, *labels: str) -> dict[str, set[str]]:
    """Metric → the labels that it has to have, for the result to have `labels`."""
    return {
        selector.metric: set(selector.labels)
        for selector in Expression("here", text, frozenset(labels)).selectors
    }


@pytest.mark.parametrize(
    ("text", "labels", "asked"),
    [
        ('rate(a{code="OK"}[5m])', ["method"], {"a": {"code", "method"}}),
        ("sum by (method) (a) / 1e6", ["method"], {"a": {"method"}}),
        ("sum without (code) (a)", ["method"], {"a": {"code", "method"}}),
        ("histogram_quantile(0.9, sum by (stage, le) (a))", ["stage"], {"a": {"stage", "le"}}),
        ("histogram_quantile(0.9, a)", ["stage"], {"a": {"stage", "le"}}),
        ("a / b", ["x"], {"a": {"x"}, "b": {"x"}}),
        ("a / on (x) b", ["x"], {"a": {"x"}, "b": {"x"}}),
        ("a / ignoring (z) b", ["x"], {"a": {"x", "z"}, "b": {"x"}}),
        ("sum by (x) (a) / ignoring (z) b", ["x"], {"a": {"x"}, "b": {"x", "z"}}),
        ("a * on (x) group_left (y) b", ["w", "y"], {"a": {"w", "x"}, "b": {"x", "y"}}),
        ("a * on (x) group_right (y) b", ["w", "y"], {"a": {"x", "y"}, "b": {"w", "x"}}),
        ("a / ignoring (z) group_left () b", ["x", "z"], {"a": {"x", "z"}, "b": {"x"}}),
        ("a and on (x) b", ["y"], {"a": {"x", "y"}, "b": {"x"}}),
        ("a unless b", ["y"], {"a": {"y"}, "b": {"y"}}),
        ("a and ignoring (y) sum without (y) (b)", ["x", "y"], {"a": {"x", "y"}, "b": {"x", "y"}}),
        ("a or b", ["y"], {"a": {"y"}, "b": {"y"}}),
        ("sum(a) or vector(0)", [], {"a": set()}),
        ("job_sli:a:rate5m", ["sli"], {"job_sli:a:rate5m": {"sli"}}),
    ],
)
def test_a_metric_is_asked_for_all_that_is_made_of_its_labels(
    text: str, labels: list[str], asked: dict[str, set[str]]
) -> None:
    assert asks(text, *labels) == asked


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('sum by (le) (rate(a{method="Recommend"}[5m]))', ["method"]),
        ('sum(a{method="Recommend"})', ["method"]),
        ("sum by (code) (sum by (method) (a))", ["code"]),
        ("sum without (code) (a)", ["code"]),
        ("histogram_quantile(0.9, sum by (stage) (a))", ["stage"]),
        ("histogram_quantile(0.9, sum by (le) (a))", ["le"]),
        ("a / on (x) b", ["y"]),
        ("sum by (y) (a) / on (x) b", ["x"]),
        ("a / on (x) sum(b)", []),
        ("a / ignoring (z) b", ["z"]),
        ("sum by (x) (a) / ignoring (z) sum by (x) (b)", []),
        ("sum by (x) (a) / ignoring (z) group_left () b", []),
        ("a * on (x) group_left (y) sum by (x) (b)", []),
        ("a * on (x) group_right () sum by (x) (b)", ["y"]),
        ("sum by (x) (a) and b", ["y"]),
        ("a unless on (x) sum by (y) (b)", []),
        ("a or vector(0)", ["x"]),
        ("absent(a)", ["x"]),
        ("job_sli:a:rate5m", ["method"]),
    ],
)
def test_a_label_that_is_aggregated_away_or_never_there_is_refused(text: str, labels: list[str]) -> None:
    with pytest.raises(AssertionError, match=r"^here: .+: no label of "):
        asks(text, *labels)


def test_what_is_not_followed_is_refused() -> None:
    for text in ("topk(3, a)", 'label_replace(a, "x", "$1", "y", "(.*)")'):
        with pytest.raises(AssertionError, match="is new here"):
            asks(text, "x")


def test_panels_of_one_title_are_two_places() -> None:
    titles = {panel["id"]: panel["title"] for panel in load_dashboard()["panels"] if panel.get("targets")}
    assert len(set(titles.values())) < len(titles)
    places = {place for each in dashboard_expressions() if (place := each.place).startswith("panel ")}
    assert places == {f"panel {number}, {title}" for number, title in titles.items()}
