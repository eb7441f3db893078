"""What the expressions of dashboard and rules ask for is there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from client.riptide.v1 import recommender_pb2 as pb
from features.encoder_name import encoder_name
from features.settings import Settings
from gateway import metrics
from gateway.page import Degraded
from tests.observability import (
    FOLDER,
    OF_PROMETHEUS,
    TARGET_LABELS,
    Expression,
    dashboard_expressions,
    load_dashboard,
    load_rules,
    rule_expressions,
    scraped,
    selectors,
)

# Of those that Triton has; the end-to-end test sees that it does.
TRITON = {
    "nv_inference_compute_infer_duration_us": {"model", "version"},
    "nv_inference_compute_input_duration_us": {"model", "version"},
    "nv_inference_compute_output_duration_us": {"model", "version"},
    "nv_inference_count": {"model", "version"},
    "nv_inference_exec_count": {"model", "version"},
    "nv_inference_pending_request_count": {"model", "version"},
    "nv_inference_queue_duration_us": {"model", "version"},
    "nv_inference_request_duration_us": {"model", "version"},
    "nv_inference_request_failure": {"model", "version", "reason"},
    "nv_inference_request_success": {"model", "version"},
    "nv_cpu_memory_total_bytes": set(),
    "nv_cpu_memory_used_bytes": set(),
    "nv_cpu_utilization": set(),
}


def gateways_series(folder: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Every series that the gateway can have: name → its labels, and its bounds if it is a bucket.

    `folder`: empty, for the files of a gateway with several workers.
    """
    made: list[Any] = []

    def keep(self: CollectorRegistry, collector: Any) -> None:
        if not isinstance(collector, MultiProcessCollector):
            made.append(collector)

    # A module of its own: of the gateway's, what is made at its import is made already.
    spec = importlib.util.spec_from_file_location("metrics_looked_at", metrics.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        patch.setattr(CollectorRegistry, "register", keep)
        spec.loader.exec_module(module)
        module.Metrics()
        module.exposition()
    series: dict[str, tuple[set[str], set[str]]] = {}
    for collector in made:
        # Public only of what has samples.
        labels = set(getattr(collector, "_labelnames", ()))
        for metric in collector.collect():
            match metric.type:
                case "counter":
                    series[f"{metric.name}_total"] = labels, set()
                case "gauge":
                    series[metric.name] = labels, set()
                case "histogram":
                    bounds = {str(bound) for bound in collector._kwargs["buckets"]}
                    series[f"{metric.name}_sum"] = series[f"{metric.name}_count"] = labels, set()
                    series[f"{metric.name}_bucket"] = labels | {"le"}, bounds
    assert "riptide_requests_total" in series
    return series


def test_every_expression_is_promql() -> None:
    expressions = [*rule_expressions(), *dashboard_expressions()]
    assert len(expressions) > 80
    for expression in expressions:
        try:
            assert expression.parsed
        except ValueError as error:
            pytest.fail(f"{expression.place}: {expression.text}: {error}")


def test_every_metric_is_one_of_the_gateways_or_of_tritons_and_has_the_labels(tmp_path: Path) -> None:
    offered = {name: (labels, set[str]()) for name, labels in TRITON.items()} | gateways_series(tmp_path)
    missing = []
    for asked in scraped():
        labels, bounds = offered.get(asked.metric, (None, set()))
        if labels is None:
            missing.append(f"{asked.place}: {asked.metric}")
        else:
            missing += [
                f"{asked.place}: {asked.metric}, {label}" for label in asked.labels - labels - TARGET_LABELS
            ]
            bound = dict(asked.equal).get("le")
            missing += [f"{asked.place}: {asked.metric}, le {bound}"] if bound and bound not in bounds else []
    assert not missing, "\n".join(missing)


def test_every_value_of_a_label_is_one_that_it_can_have() -> None:
    can_be = {
        "code": {code.name for code in grpc.StatusCode},
        "method": {method.name for method in pb.DESCRIPTOR.services_by_name["Recommender"].methods},
        "outcome": {"FULL", *(reason.value for reason in Degraded if reason is not Degraded.NO)},
        "reason": {"BACKEND", "CANCELED", "OTHER", "REJECTED"},
        "stage": {"features", "model", "page", "queue"},
    }
    asked = {
        (label, value)
        for selector in scraped()
        for label, value in selector.among
        if value != ".*" and label not in {"le", "model"}
    }
    assert {label for label, _ in asked} == {"code", "method", "outcome", "reason", "stage"}
    assert {(label, value) for label, value in asked if value not in can_be[label]} == set()


@pytest.mark.parametrize("name", [Settings.model_fields["model_name"].default, "ranker"])
def test_the_model_and_its_encoder_are_told_apart_whatever_the_model_is_called(name: str) -> None:
    [encoders] = {value for selector in selectors() for label, value in selector.among if label == "model"}
    assert re.fullmatch(encoders, encoder_name(name))
    assert not re.fullmatch(encoders, name)
    assert not any(label == "model" for selector in selectors() for label, _ in selector.equal)


def test_a_panel_of_quantiles_says_where_their_buckets_end(tmp_path: Path) -> None:
    """Prometheus answers with the last bound for all that is beyond."""
    offered = gateways_series(tmp_path)
    looked_at = 0
    for panel in load_dashboard()["panels"]:
        for target in panel.get("targets", ()):
            if panel["fieldConfig"]["defaults"]["unit"] == "s" and "histogram_quantile" in target["expr"]:
                [asked] = Expression("", target["expr"]).selectors
                last = f"{max(map(float, offered[asked.metric][1])):g} s"
                assert panel["description"].endswith(f" {last} means {last} or more."), panel["title"]
                looked_at += 1
    assert looked_at


def test_what_a_rule_records_is_named_for_it_and_recorded_before_it_is_asked_for() -> None:
    recorded: set[str] = set()
    for rule in load_rules():
        place = rule.get("record") or rule["alert"]
        assert {s.metric for s in selectors() if s.place == place and ":" in s.metric} <= recorded
        if "record" in rule:
            assert re.fullmatch(r"(job_)?sli:riptide_[a-z_]+:(ratio|(ratio_)?rate\w+|increase\w+)", place)
            recorded.add(place)
    assert {s.metric for s in selectors() if ":" in s.metric} <= recorded


def test_the_jobs_that_are_named_are_scraped() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    expressions = [*rule_expressions(), *dashboard_expressions()]
    named = {job for expression in expressions for job in re.findall(r'\bjob="([^"$]+)"', expression.text)}
    assert named == {job["job_name"] for job in config["scrape_configs"]} == {"riptide-gateway", "triton"}
    assert config["rule_files"] == ["rules.yml"]
    assert {s.metric for s in selectors()} & OF_PROMETHEUS == {"up"}
