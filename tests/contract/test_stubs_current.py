"""The committed stubs are those of the committed contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = Path("client/riptide/v1")
PROTOS = sorted(path.stem for path in (ROOT / CONTRACT).glob("*.proto"))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs made now, the way `make proto` makes them."""
    out = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    names = [str(CONTRACT / f"{name}.proto") for name in PROTOS]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, *names], cwd=ROOT, check=True
    )
    return out


@pytest.mark.parametrize("ending", ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py"])
@pytest.mark.parametrize("proto", PROTOS)
def test_a_committed_stub_equals_a_fresh_one(generated: Path, proto: str, ending: str) -> None:
    path = CONTRACT / f"{proto}{ending}"
    assert (ROOT / path).read_text() == (generated / path).read_text(), f"{path} is stale: make proto"
