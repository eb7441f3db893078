"""Metrics of several workers, in real processes: prometheus_client decides at import how it counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WORKER = """
from types import SimpleNamespace
from gateway.metrics import Metrics
metrics = Metrics()
rows = [SimpleNamespace(answer=answer, behind=False) for answer in (None, "kept", "kept")]
rows.append(SimpleNamespace(answer="old", behind=True))
metrics.waits_for_encoder()
metrics.refreshed([0.02, 0.3])
metrics.refresh_dropped()
metrics.backlog(7, 1.5)
metrics.batch(3, rows, 0.5, 2.0)
for duration in (0.0004, 0.0005, 0.0006, 0.2, 7.0):
    metrics.answered("Recommend", "OK", duration)
metrics.answered("Recommend", "INVALID_ARGUMENT", 0.001)
metrics.pages(3, [1.5, 1.5], [0.2, 0.2])
metrics.degraded("COLD_START")
metrics.events(2, 1)
metrics.flush()
metrics.answered("Recommend", "OK", 0.5)
metrics.flush()
metrics.flush()
"""

PARENT = """
import subprocess, sys
from pathlib import Path
from gateway import metrics
metrics.prepare(Path(sys.argv[1]))
for _ in range(2):
    subprocess.run([sys.executable, "-c", sys.argv[2]], check=True)
sys.stdout.buffer.write(metrics.exposition())
"""


def test_flushed_figures_of_all_workers_add_up_and_fall_into_the_right_buckets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path / "metrics"), WORKER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    values = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if not line.startswith("#"))

    def value(name: str) -> float:
        return float(values[name])

    assert value('riptide_requests_total{code="OK",method="Recommend"}') == 12
    assert value('riptide_requests_total{code="INVALID_ARGUMENT",method="Recommend"}') == 2
    duration = "riptide_request_duration_seconds"
    assert value(f'{duration}_count{{method="Recommend"}}') == 14
    assert value(f'{duration}_bucket{{le="0.0005",method="Recommend"}}') == 4
    assert value(f'{duration}_bucket{{le="0.001",method="Recommend"}}') == 8
    assert value(f'{duration}_bucket{{le="0.25",method="Recommend"}}') == 10
    assert value(f'{duration}_bucket{{le="1.0",method="Recommend"}}') == 12
    assert value(f'{duration}_bucket{{le="+Inf",method="Recommend"}}') == 14
    assert abs(value(f'{duration}_sum{{method="Recommend"}}') - 2 * 7.7025) < 1e-9
    assert value('riptide_stage_duration_seconds_count{stage="queue",version="3"}') == 4
    assert value("riptide_batch_rows_count") == 2
    assert value("riptide_batch_rows_sum") == 8
    assert value('riptide_user_vectors_total{source="encoded"}') == 2
    assert value('riptide_user_vectors_total{source="cached"}') == 4
    assert value('riptide_user_vectors_total{source="lagging"}') == 2
    assert value("riptide_encoder_waits_total") == 2
    assert value('riptide_vector_refreshes_total{outcome="stored"}') == 4
    assert value('riptide_vector_refreshes_total{outcome="dropped"}') == 2
    assert value('riptide_vector_lag_seconds_bucket{le="0.025"}') == 2
    # Of workers that live: these have ended, but nobody has said so yet.
    assert value("riptide_encoder_backlog") == 14
    assert value("riptide_encoder_oldest_seconds") == 1.5
    assert value('riptide_stage_duration_seconds_bucket{le="0.002",stage="model",version="3"}') == 2
    assert value('riptide_stage_duration_seconds_bucket{le="0.001",stage="model",version="3"}') == 0
    assert value('riptide_degraded_total{reason="COLD_START"}') == 2
    assert value('riptide_events_total{outcome="recorded"}') == 4
