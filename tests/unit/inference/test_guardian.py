"""Nothing of a guarded program outlives its launcher. A shell stands for Triton: processes, no model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GUARDIAN = Path(__file__).parents[3] / "inference" / "guardian.py"


def guard(tmp_path: Path, script: str, prefix: str = "riptide_test_none_") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", GUARDIAN, tmp_path / "pid", prefix, "0.5", "/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def read_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def close_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_the_programs_status_is_handed_on(tmp_path: Path) -> None:
    assert guard(tmp_path, "exit 3").wait(20) == 3


def test_a_program_killed_by_a_signal_ends_with_128_and_its_number(tmp_path: Path) -> None:
    assert guard(tmp_path, "kill -KILL $$").wait(20) == 128 + signal.SIGKILL


def test_the_group_ends_when_the_launcher_is_gone(tmp_path: Path) -> None:
    guardian = guard(tmp_path, "sleep 600 & echo $!; wait")
    sleeper = int(read_line(guardian))
    close_input(guardian)
    assert guardian.wait(20) == 128 + signal.SIGTERM
    assert gone(sleeper)


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    guardian = guard(tmp_path, "trap '' TERM; echo ready; while :; do sleep 600; done")
    assert read_line(guardian) == "ready"
    close_input(guardian)
    assert guardian.wait(20) == 128 + signal.SIGKILL


def test_what_the_program_leaves_behind_goes_with_it(tmp_path: Path) -> None:
    region = Path("/dev/shm") / f"riptide_test_{os.getpid()}_region"
    other = Path("/dev/shm") / f"riptide_other_{os.getpid()}_region"
    region.touch()
    other.touch()
    try:
        guardian = guard(tmp_path, "sleep 600 & echo $!", prefix=f"riptide_test_{os.getpid()}_")
        sleeper = int(read_line(guardian))
        assert guardian.wait(20) == 0
        assert gone(sleeper)
        assert not region.exists()
        assert other.exists()
        assert not (tmp_path / "pid").exists()
    finally:
        region.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def test_the_program_does_not_survive_a_killed_guardian(tmp_path: Path) -> None:
    guardian = guard(tmp_path, "echo $$; exec sleep 600")
    program = int(read_line(guardian))
    guardian.kill()
    guardian.wait()
    deadline = time.monotonic() + 20
    while not gone(program):
        if time.monotonic() > deadline:
            pytest.fail("the program is still there")
        time.sleep(0.02)
