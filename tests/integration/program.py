"""Programs of Riptide as processes of a deployment, and what is left of one when it should be gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from features.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
READY_S = 120
_STOP_S = 60


@dataclass(frozen=True)
class Program:
    """A started `python -m …`, and where its output goes."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.output.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if that does not help; the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL; the exit status."""
        self.process.kill()
        return self.process.wait()


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment variables that give a process these settings, and no others of Riptide."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    fields = settings.model_dump(exclude_unset=True)
    return kept | {f"{PREFIX}{name.upper()}": str(value) for name, value in fields.items()}


def start(settings: Settings, *module: str) -> Program:
    """Starts `python -m MODULE …` with these settings."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    output = settings.state_dir / f"{'-'.join(module)}-{time.monotonic_ns()}.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=environment_of(settings),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    return Program(process, output)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that has a path below `folder` on its command line, or its state folder there."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if process.pid != os.getpid()
        and (
            str(folder) in " ".join(process.info["cmdline"] or ())
            or str(folder) in (process.info["environ"] or {}).get(f"{PREFIX}STATE_DIR", "")
        )
    ]


def wait_until(condition: Callable[[], object], explain: Callable[[], str] = str) -> None:
    """Polls `condition` until it holds; fails with what `explain` says if it does not within `READY_S`."""
    deadline = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.05)
