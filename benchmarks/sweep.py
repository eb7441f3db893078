"""Triton's and TensorFlow's settings, one changed at a time, beside what is published by default.

Triton reads most of them at its start, so each variant has one of its own. What is published is measured anew
beside each of them, and a ratio is that of two neighbours: the machine changes by more between the first and
the last of a round than most settings do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from benchmarks.bench import Bench, Server, closed_load, in_turn, measure
from benchmarks.deployment import deployed
from benchmarks.models import Model, small
from benchmarks.section import Ratio, Section

LOADS = (1, 4)
Change = Callable[[model_config_pb2.ModelConfig], None]


def _unchanged(config: model_config_pb2.ModelConfig) -> None:
    pass


def _parameter(name: str, value: int) -> Change:
    def change(config: model_config_pb2.ModelConfig) -> None:
        config.parameters[name].string_value = str(value)

    return change


def _instances(count: int) -> Change:
    def change(config: model_config_pb2.ModelConfig) -> None:
        config.instance_group[0].count = count

    return change


def _queue_delay(microseconds: int) -> Change:
    def change(config: model_config_pb2.ModelConfig) -> None:
        config.dynamic_batching.max_queue_delay_microseconds = microseconds

    return change


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting that differs."""

    name: str
    change: Change = _unchanged
    variables: Mapping[str, str] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)


DEFAULT = Variant("as published")
VARIANTS = (
    Variant("as published, again"),
    Variant("2 instances", _instances(2)),
    Variant("2 intra-op threads", _parameter("TF_NUM_INTRA_THREADS", 2)),
    Variant("2 inter-op threads", _parameter("TF_NUM_INTER_THREADS", 2)),
    Variant("oneDNN on", variables={"TF_ENABLE_ONEDNN_OPTS": "1"}),
    Variant("queue delay 0.5 ms", _queue_delay(500)),
    Variant("queue delay 2 ms", _queue_delay(2_000)),
    Variant("batches of 16 at most", gateway={"max_batch": 16}),
    Variant("batches of 32 at most", gateway={"max_batch": 32}),
)


def run(bench: Bench) -> Section:
    """Measures: with one worker, and with two, whose batches Triton may join."""
    model = small(bench)
    section = Section(
        f"Triton's settings: small model ({model.items} items), vectors kept, 2 gateway workers"
    )
    loads = (*LOADS, bench.in_flight)
    duel = 0
    for number in range(1, bench.rounds + 1):
        with bench.kept(section), ExitStack() as stack:
            published = _started(bench, DEFAULT, number, model, stack)
            for variant in in_turn(VARIANTS, number):
                # Rounds are what ratios are taken within: each duel is one.
                duel += 1
                with bench.kept(section), ExitStack() as own:
                    servers = in_turn([published, _started(bench, variant, number, model, own)], duel)
                    for in_flight in loads:
                        for server in servers:
                            section.measured.append(measure(bench, server, duel, in_flight=in_flight))
    high = closed_load(bench.in_flight)
    for variant in VARIANTS:
        section.ratios.append(
            Ratio(f"{variant.name} / default, calls/s, {high}", (variant.name, high), (DEFAULT.name, high))
        )
        for in_flight in LOADS:
            load = closed_load(in_flight)
            section.ratios.append(
                Ratio(
                    f"{variant.name} / default, p50, {load}",
                    (variant.name, load),
                    (DEFAULT.name, load),
                    "p50_ms",
                )
            )
    return section


def _started(bench: Bench, variant: Variant, number: int, model: Model, stack: ExitStack) -> Server:
    name, prepare = f"{variant.name} {number}", changed(variant.change)
    deployment = stack.enter_context(
        deployed(bench, name, model, prepare=prepare, variables=variant.variables)
    )
    return deployment.gateway(variant.name, workers=2, **variant.gateway)


def changed(change: Change) -> Callable[[Path], None]:
    """Writes the recommender's `config.pbtxt` of a repository anew, changed."""

    def prepare(repository: Path) -> None:
        for path in repository.glob("recommender/config.pbtxt"):
            config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
            change(config)
            draft = path.with_suffix(".draft")  # the file itself is a link to what is kept
            draft.write_text(text_format.MessageToString(config), encoding="utf-8")
            draft.replace(path)

    return prepare
