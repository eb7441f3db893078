"""A worker process as the gateway's parent starts it, without a Triton."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from features.catalog import Catalog
from features.figures import decode
from features.lmdb_store import LmdbStore
from features.operator_token import operator_token
from tests.ports import free_ports

ROOT = Path(__file__).parents[3]


@pytest.fixture
def worker(tmp_path: Path, catalog: Catalog) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where it listens. One call at a time is all that it takes."""
    folder = tmp_path / "repository" / "recommender" / "1"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "catalog.lmdb", folder)
    port, triton_port = free_ports(2)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RIPTIDE_")} | {
        "RIPTIDE_STATE_DIR": str(tmp_path / "var"),
        "RIPTIDE_MODEL_REPOSITORY": str(tmp_path / "repository"),
        "RIPTIDE_GRPC_PORT": str(port),
        "RIPTIDE_TRITON_GRPC_PORT": str(triton_port),
        "RIPTIDE_MAX_IN_FLIGHT": "1",
        "RIPTIDE_DRAIN_S": "600",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "--worker-of", str(os.getpid())],
        cwd=ROOT,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, f"127.0.0.1:{port}"
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_who_watches_the_health_keeps_no_other_call_out_and_holds_up_no_draining(
    worker: tuple[subprocess.Popen[str], str],
) -> None:
    process, target = worker
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="riptide.v1.Recommender")
        watching = [stub.Watch(asked, timeout=600, wait_for_ready=True) for _ in range(3)]
        answer = stub.Check(asked, timeout=60, wait_for_ready=True)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for stream in watching:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            # What clients take for healthy.
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        process.send_signal(signal.SIGTERM)
        # Of the time for draining, 600 s, no stream takes any.
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "Traceback" not in said


async def test_a_worker_hears_operators_only_and_leaves_a_report_of_what_it_has_seen(
    worker: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, target = worker
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        recommend = RecommenderStub(channel).Recommend
        request = pb.RecommendRequest(user_id="u", limit=5)
        answer = recommend(request, timeout=60, wait_for_ready=True)
        assert (answer.cohort, answer.model.version, len(answer.items)) == ("stable", 1, 5)
        for token, code in (
            ("a guess", grpc.StatusCode.UNAUTHENTICATED),
            (operator_token(tmp_path / "var"), grpc.StatusCode.FAILED_PRECONDITION),
        ):
            pin = (("riptide-version", "1"), ("riptide-operator-token", token))
            with pytest.raises(grpc.RpcError) as caught:
                recommend(request, metadata=pin, timeout=60)
            assert caught.value.code() is code
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    store = LmdbStore(tmp_path / "var" / "store", history_cap=10, map_bytes=1 << 30)
    [value] = (await store.control.reports()).values()
    await store.close()
    report = decode(value)
    assert (report.revision, report.ready, report.versions) == (0, frozenset(), {})
