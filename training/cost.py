"""What one call of an exported SavedModel costs on one thread: the figures that sizing starts from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

BATCHES = (1, 32, 64)
_CALLS = 200
_PAGE = ("item_keys", "scores")


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of request at one batch size."""

    request: str
    batch: int
    median_ms: float
    least_ms: float
    """The fastest call: the figure that a busy machine disturbs least."""


def measure(export: Path) -> list[Cost]:
    """Times `recommend` on the golden requests of an export, in a process that has not used TensorFlow."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.saved_model.load(
        str(export / "model.savedmodel")
    )  # it owns the weights: it has to outlive the calls
    with np.load(export / "golden.npz") as golden:
        real = {name.removeprefix("in:"): golden[name] for name in golden.files if name.startswith("in:")}
        real["user_vector"] = golden["out:user_vector"]
    return list(_costs(model.signatures["recommend"], real))


def print_costs(console: Console, costs: Sequence[Cost]) -> None:
    """The measurements as a table."""
    table = Table(title="One call of `recommend`, one thread", title_justify="left")
    for column in ("request", "batch", "median ms", "fastest ms", "fastest ms a user"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for cost in costs:
        figures = (f"{value:.3f}" for value in (cost.median_ms, cost.least_ms, cost.least_ms / cost.batch))
        table.add_row(cost.request, str(cost.batch), *figures)
    console.print(table)


def _costs(signature: Any, real: dict[str, NDArray[Any]]) -> Iterator[Cost]:
    unfiltered = {**real, "allowed_categories": np.ones_like(real["allowed_categories"])}
    kinds = (
        ("fresh", _PAGE, 1, unfiltered),
        ("fresh, filtered", _PAGE, 1, real),
        ("fresh, reasons", (*_PAGE, "reason_keys"), 1, unfiltered),
        ("nothing fresh", _PAGE, 0, unfiltered),
    )
    for name, outputs, fresh, arrays in kinds:
        call = _asking_for(signature, outputs)
        for batch in BATCHES:
            resized = {key: np.resize(value, (batch, *value.shape[1:])) for key, value in arrays.items()}
            inputs = {key: tf.constant(value) for key, value in resized.items()}
            inputs["user_vector_fresh"] = tf.fill((batch, 1), fresh)
            times_ms = _times_ms(call, inputs)
            yield Cost(name, batch, float(np.median(times_ms)), min(times_ms))


def _asking_for(signature: Any, outputs: Sequence[str]) -> Any:
    """The signature as a server runs it for a client that wants these outputs: the rest is pruned away."""

    def call(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = signature(**inputs)
        return {name: answers[name] for name in outputs}

    specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in _inputs(signature).items()}
    return tf.function(call, autograph=False).get_concrete_function(**specs)


def _inputs(signature: Any) -> dict[str, tf.TensorSpec]:
    specs: dict[str, tf.TensorSpec] = signature.structured_input_signature[1]
    return specs


def _times_ms(call: Any, inputs: dict[str, tf.Tensor]) -> list[float]:
    for _ in range(10):
        call(**inputs)
    times_ms = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call(**inputs)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return times_ms
