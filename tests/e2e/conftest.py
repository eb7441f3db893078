"""The whole of Riptide, started as a user starts it: real data, real processes, a quickly trained model."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.ports import free_ports

QUICK = Path(__file__).with_name("quick.toml")
PORTS = ("grpc", "operator", "http", "triton_http", "triton_grpc", "triton_metrics")


@dataclass(frozen=True)
class Deployment:
    """A running stack, and how to reach it."""

    env: dict[str, str]
    folder: Path

    def port(self, name: str) -> int:
        return int(self.env[f"RIPTIDE_{name.upper()}_PORT"])

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port('grpc')}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port('http')}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def counted(self, sample: str) -> float:
        """The value of the one sample of `/metrics` that begins so."""
        [line] = [line for line in self.get("/metrics").splitlines() if line.startswith(sample)]
        return float(line.rsplit(" ", 1)[1])

    @property
    def triton(self) -> psutil.Process:
        """The running `tritonserver`."""
        launcher = self.folder / "var" / "triton" / str(self.port("triton_grpc"))
        return psutil.Process(int((launcher / "tritonserver.pid").read_text()))

    @property
    def processes(self) -> list[str]:
        """Every process that belongs to this stack, by its command line or its settings."""
        return [
            f"{process.pid} {process.info['cmdline']}"
            for process in psutil.process_iter(["cmdline", "environ"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
            or (process.info["environ"] or {}).get("RIPTIDE_STATE_DIR") == self.env["RIPTIDE_STATE_DIR"]
        ]

    def run(self, *module: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Runs `python -m …` against this stack."""
        return subprocess.run(
            [sys.executable, "-m", *module],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`make up` with everything in a folder of its own and on free ports."""
    folder = tmp_path_factory.mktemp("riptide")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RIPTIDE_")}
    env |= {
        "RIPTIDE_STATE_DIR": str(folder / "var"),
        "RIPTIDE_MODEL_REPOSITORY": str(folder / "model_repository"),
        "RIPTIDE_STORE": f"lmdb:{folder / 'store'}",
    }
    env |= {
        f"RIPTIDE_{name.upper()}_PORT": str(port)
        for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)
    }
    deployed = Deployment(env, folder)
    try:
        up = deployed.run("stack", "up", "--config", str(QUICK), timeout_s=600)
        assert up.returncode == 0, up.stdout + up.stderr
        yield deployed
    finally:
        down = deployed.run("stack", "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert deployed.processes == [], "processes left behind"


@pytest.fixture
async def gateway(deployment: Deployment) -> AsyncIterator[RecommenderStub]:
    """A plain stub without retries: what it sees is what the gateway answered."""
    async with grpc.aio.insecure_channel(deployment.target) as channel:
        yield RecommenderStub(channel)
