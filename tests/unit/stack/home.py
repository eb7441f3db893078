"""A folder that a stack runs in, with small programs in place of training, publishing, Triton and the
gateway. Loading users is the real command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.ports import free_ports

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("fake")
LIMIT_S = 60


def until(condition: Callable[[], object], what: str, seen: Callable[[], object] = lambda: "") -> None:
    """Waits for the condition; if it does not come, says what was waited for, and what is `seen` instead."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}; {seen()}"
        time.sleep(0.02)


class Home:
    """A folder that a stack runs in, with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(FAKE, folder, dirs_exist_ok=True)
        (folder / "tiny.toml").write_text('[data]\nname = "tiny"\n')
        names = (
            "GRPC_PORT",
            "OPERATOR_PORT",
            "HTTP_PORT",
            "TRITON_HTTP_PORT",
            "TRITON_GRPC_PORT",
            "TRITON_METRICS_PORT",
        )
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            # Found again in /proc: whatever carries it was started by this stack.
            "STACK_TEST": str(folder),
            **{f"RIPTIDE_{name}": str(port) for name, port in self.ports.items()},
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stack", *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *words: str, **environment: str) -> tuple[int, str]:
        process = self.start(*words, **environment)
        output, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, output

    def run(self, **environment: str) -> subprocess.Popen[str]:
        return self.start("run", "--config", "tiny.toml", **environment)

    def up(self) -> tuple[int, str]:
        return self.call("up", "--config", "tiny.toml")

    def status(self) -> str:
        return self.call("status")[1]

    def processes(self) -> dict[int, str]:
        """Pid and command line of all that still runs, zombies aside."""
        mark = f"STACK_TEST={self.folder}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (
                            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        )
                except OSError:
                    continue
        return found

    def ended(self) -> list[str]:
        """Which services ended in good order, first one first."""
        path = self.folder / "ended"
        return path.read_text().split() if path.exists() else []


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Output up to the line that has `words`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"ended without saying {words!r}:\n{''.join(lines)}")
