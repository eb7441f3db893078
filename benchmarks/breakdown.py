"""Where the time of a call goes, from its caller to TensorFlow and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.triton_statistics import Statistics

CALLER_HOP = "caller ↔ gateway (gRPC), and the generator"
GATEWAY = "gateway"
TRITON_HOP = "gateway ↔ Triton (gRPC)"
QUEUE = "Triton, queue"
BACKEND = "Triton, Python backend"
OTHER = "Triton, other"
TENSORFLOW = "TensorFlow"


def breakdown(
    caller_ms: float, stages_ms: Mapping[str, float], triton: Statistics, tensorflow_ms: float
) -> dict[str, float]:
    """Milliseconds of each part of a call, means; their sum is `caller_ms`.

    Args:
        caller_ms: mean of what calls took for the caller.
        stages_ms: means of what the gateway says of them.
        triton: Triton's statistics of the same calls.
        tensorflow_ms: a run of the SavedModel in process, for a batch as large as theirs were.
    """
    compute = sum(triton.mean_ms(part) for part in ("compute_input", "compute_infer", "compute_output"))
    in_triton = triton.mean_ms("success")
    queue = triton.mean_ms("queue")
    return {
        CALLER_HOP: caller_ms - stages_ms["total"],
        GATEWAY: stages_ms["total"] - stages_ms["model"],
        TRITON_HOP: stages_ms["model"] - in_triton,
        QUEUE: queue,
        OTHER: in_triton - queue - compute,
        BACKEND: compute - tensorflow_ms,
        TENSORFLOW: tensorflow_ms,
    }


def at_batch(ms_by_batch: Mapping[str, float], rows: float) -> float:
    """Milliseconds of a run of `rows` rows, in a straight line between the sizes that were measured."""
    sizes = sorted(ms_by_batch, key=int)
    return float(np.interp(rows, [int(size) for size in sizes], [ms_by_batch[size] for size in sizes]))
