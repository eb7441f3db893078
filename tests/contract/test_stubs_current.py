"""The committed stubs are those of the committed contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = "client/riptide/v1/recommender.proto"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs made now, the way `make proto` makes them."""
    out = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, PROTO], cwd=ROOT, check=True
    )
    return out


@pytest.mark.parametrize("name", ["recommender_pb2.py", "recommender_pb2.pyi", "recommender_pb2_grpc.py"])
def test_a_committed_stub_equals_a_fresh_one(generated: Path, name: str) -> None:
    path = Path(PROTO).parent / name
    assert (ROOT / path).read_text() == (generated / path).read_text(), f"{path} is stale: make proto"
