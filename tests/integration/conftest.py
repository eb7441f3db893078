"""A tiny export, a repository that holds it published, and a real Triton that serves it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from features.settings import Settings
from inference.environment import Interpreter, probe
from inference.server import pid_file
from rollout.publish import publish
from tests.integration.program import ROOT, Program, start, wait_until
from tests.integration.tiny_variant import Variant, write_exports
from tests.ports import free_ports

PORTS = (
    "grpc_port",
    "operator_port",
    "http_port",
    "triton_http_port",
    "triton_grpc_port",
    "triton_metrics_port",
)


def settings_below(folder: Path) -> Settings:
    """Settings of a deployment that writes only to `folder` and has ports of its own."""
    ports: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return Settings(state_dir=folder / "state", model_repository=folder / "repository", **ports)


@dataclass(frozen=True)
class Launcher:
    """A running `python -m inference`."""

    program: Program
    settings: Settings

    @property
    def process(self) -> subprocess.Popen[str]:
        """The launcher itself."""
        return self.program.process

    @property
    def output(self) -> Path:
        """Where its output goes."""
        return self.program.output

    @property
    def server_pid(self) -> int:
        """Process id of the tritonserver that runs now."""
        return int(pid_file(self.settings).read_text())

    @property
    def times_ready(self) -> int:
        """How often it said so."""
        return self.program.text.count("triton ready: ")

    def wait_ready(self, times: int = 1) -> None:
        """Wait until it said `times` times that it is ready."""
        wait_until(
            lambda: self.times_ready >= times or not self.program.runs,
            lambda: self.program.text,
        )
        assert self.program.runs, self.program.text

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self.program.stop()


def launch(settings: Settings) -> Launcher:
    """Start `python -m inference` with these settings."""
    return Launcher(start(settings, "inference"), settings)


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export folder as training writes it; read only."""
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    write_exports({folder: Variant()})
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
