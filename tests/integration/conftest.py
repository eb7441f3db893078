"""A tiny export, a repository that holds it published, and a real Triton that serves it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from features.settings import Settings
from inference.environment import Interpreter, probe
from inference.server import pid_file
from rollout.publish import publish
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
READY_S = 120


def settings_below(folder: Path) -> Settings:
    """Settings of a deployment that writes only to `folder` and has ports of its own."""
    http, grpc, metrics = free_ports(3)
    return Settings(
        state_dir=folder / "state",
        model_repository=folder / "repository",
        triton_http_port=http,
        triton_grpc_port=grpc,
        triton_metrics_port=metrics,
    )


@dataclass
class Launcher:
    """A running `python -m inference`."""

    process: subprocess.Popen[str]
    settings: Settings
    output: Path

    @property
    def server_pid(self) -> int:
        """Process id of the tritonserver that runs now."""
        return int(pid_file(self.settings).read_text())

    @property
    def times_ready(self) -> int:
        """How often it said so."""
        return self.output.read_text().count("triton ready: ")

    def wait_ready(self, times: int = 1) -> None:
        """Wait until it said `times` times that it is ready."""
        wait_until(
            lambda: self.times_ready >= times or self.process.poll() is not None,
            lambda: self.output.read_text(),
        )
        assert self.process.poll() is None, self.output.read_text()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def wait_until(condition: object, explain: object = lambda: "") -> None:
    """Poll `condition` until it holds."""
    deadline = time.monotonic() + READY_S
    while not condition():  # type: ignore[operator]  # a lambda
        assert time.monotonic() < deadline, explain()  # type: ignore[operator]  # a lambda
        time.sleep(0.05)


def launch(settings: Settings) -> Launcher:
    """Start `python -m inference` with these settings."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    output = settings.state_dir / f"inference-{time.monotonic_ns()}.log"
    fields = settings.model_dump(exclude_unset=True)
    environment = os.environ | {f"RIPTIDE_{name.upper()}": str(value) for name, value in fields.items()}
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    return Launcher(process, settings, output)


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder as training writes it; read only."""
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    subprocess.run(
        [sys.executable, "-m", "tests.integration.tiny_model", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def export(tiny_export: Path, tmp_path: Path) -> Path:
    """A copy of the tiny export that the test may spoil."""
    return Path(shutil.copytree(tiny_export, tmp_path / "exports" / "tiny"))


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    """Triton's environment."""
    return probe(ROOT / Settings.model_fields["triton_python"].default)


@pytest.fixture(scope="session")
def published(
    tmp_path_factory: pytest.TempPathFactory, tiny_export: Path, interpreter: Interpreter
) -> Settings:
    """A deployment whose repository holds the tiny model as version 1; read only."""
    settings = settings_below(tmp_path_factory.mktemp("published"))
    publish(settings, interpreter, tiny_export)
    return settings


@pytest.fixture(scope="module")
def triton(published: Settings) -> Iterator[Launcher]:
    """A Triton that serves the tiny model."""
    launcher = launch(published)
    try:
        launcher.wait_ready()
        yield launcher
    finally:
        assert launcher.stop() == 0, launcher.output.read_text()
