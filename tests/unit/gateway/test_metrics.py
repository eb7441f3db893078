"""Metrics of several workers, in real processes: prometheus_client decides at import how it counts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

WORKER = """
import sys
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
metrics.stages(3, [1.5, 1.5], [0.2, 0.2])
metrics.page(3, "canary", "FULL")
metrics.page(3, "canary", "FULL")
metrics.page(3, "stable", "COLD_START")
metrics.shadowed(4, [0.2, 0.9])
metrics.shadowed(4, (), 3)
metrics.in_flight(5)
metrics.expect_pages({(3, "stable"), (3, "canary"), (4, "canary")})
metrics.serving(3, 4, 25.0, ready=sys.argv[1] == "0")
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
for number in range(2):
    subprocess.run([sys.executable, "-c", sys.argv[2], str(number)], check=True)
metrics.worker_restarted()
sys.stdout.buffer.write(metrics.exposition())
"""


def exposed(folder: Path, worker: str) -> str:
    """What is exposed of two workers that run this program, each with its number as argument."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(folder / "metrics"), worker],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    kinds = [line for line in lines if line.startswith("# TYPE")]
    assert len(set(series)) == len(series), "Prometheus takes the first of two and may refuse the page"
    assert len(set(kinds)) == len(kinds)
    return done.stdout


def test_flushed_figures_of_all_workers_add_up_and_fall_into_the_right_buckets(tmp_path: Path) -> None:
    said = exposed(tmp_path, WORKER)
    values = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))

    def value(name: str) -> float:
        return float(values[name])

    assert value('riptide_requests_total{code="OK",method="Recommend"}') == 12
    assert value('riptide_requests_total{code="INVALID_ARGUMENT",method="Recommend"}') == 2
    duration = "riptide_request_duration_seconds"
    assert value(f'{duration}_count{{method="Recommend"}}') == 12, "of calls that ended well"
    assert value(f'{duration}_bucket{{le="0.0005",method="Recommend"}}') == 4
    assert value(f'{duration}_bucket{{le="0.001",method="Recommend"}}') == 6
    assert value(f'{duration}_bucket{{le="0.2",method="Recommend"}}') == 8
    assert value(f'{duration}_bucket{{le="1.0",method="Recommend"}}') == 10
    assert value(f'{duration}_bucket{{le="+Inf",method="Recommend"}}') == 12
    assert abs(value(f'{duration}_sum{{method="Recommend"}}') - 2 * 7.7015) < 1e-9
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
    pages = 'riptide_pages_total{{cohort="{}",outcome="{}",version="3"}}'
    assert value(pages.format("canary", "FULL")) == 4
    assert value(pages.format("stable", "COLD_START")) == 2
    assert value(pages.format("stable", "MODEL_UNAVAILABLE")) == 0, "there before it happens"
    assert value(pages.format("canary", "STALE_VECTOR")) == 0
    assert value(pages.format("canary", "FULL").replace('"3"', '"4"')) == 0
    assert value('riptide_events_total{outcome="recorded"}') == 4
    assert value('riptide_shadow_overlap_ratio_bucket{le="0.2",version="4"}') == 2
    assert value('riptide_shadow_overlap_ratio_count{version="4"}') == 4
    assert value('riptide_shadow_failures_total{version="4"}') == 6
    assert value("riptide_requests_in_flight") == 10
    assert value("riptide_model_ready") == 0, "one of the two cannot"
    assert value("riptide_stable_version") == 3
    assert value("riptide_candidate_version") == 4
    assert value("riptide_candidate_traffic_ratio") == 0.25
    assert value("riptide_worker_restarts_total") == 1


def test_names_are_those_that_prometheus_recommends(tmp_path: Path) -> None:
    said = exposed(tmp_path, WORKER)
    kinds = dict(line.split()[2:4] for line in said.splitlines() if line.startswith("# TYPE"))
    assert len(kinds) >= 20
    for name, kind in kinds.items():
        assert name.startswith("riptide_")
        assert name.endswith("_total") == (kind == "counter"), name
        assert not name.endswith(("_ms", "_milliseconds", "_percent", "_mb")), f"{name}: no base unit"
        if kind == "histogram":
            assert name.endswith(("_seconds", "_ratio", "_rows")), f"{name}: its unit is not told"


def test_the_documentation_names_them_all(tmp_path: Path) -> None:
    said = exposed(tmp_path, WORKER)
    names = {line.split()[2] for line in said.splitlines() if line.startswith("# TYPE")}
    page = Path(__file__).parents[3] / "docs" / "observability.md"
    assert set(re.findall(r"`(riptide_\w+)`", page.read_text())) == names


def test_what_can_be_counted_is_there_before_it_is(tmp_path: Path) -> None:
    said = exposed(tmp_path, "from gateway.metrics import Metrics; Metrics()")
    for wanted in (
        'riptide_requests_total{code="UNAVAILABLE",method="RecordEvents"} 0.0',
        'riptide_requests_total{code="OK",method="Recommend"} 0.0',
        'riptide_user_vectors_total{source="lagging"} 0.0',
        'riptide_vector_refreshes_total{outcome="dropped"} 0.0',
        'riptide_events_total{outcome="duplicate"} 0.0',
        "riptide_encoder_waits_total 0.0",
        "riptide_worker_restarts_total 1.0",
    ):
        assert wanted in said.splitlines()


def test_metrics_that_count_nothing_take_every_figure(tmp_path: Path) -> None:
    quiet = WORKER.replace("import Metrics", "import uncounted").replace("Metrics()", "uncounted()")
    said = exposed(tmp_path, quiet)
    names = {line.split("{")[0].split()[0] for line in said.splitlines() if not line.startswith("#")}
    assert names == {"riptide_worker_restarts_total"}
