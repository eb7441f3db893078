"""Who may say that it is the running stack."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from stack.errors import StackError
from stack.instance import Instance, announce, only_one, process_start, running


def test_a_process_of_another_start_time_is_not_the_one_that_was_written_down(tmp_path: Path) -> None:
    announce(tmp_path, "ready")
    assert running(tmp_path) is not None
    written = json.loads((tmp_path / "stack.json").read_text())
    written["started"] -= 1
    (tmp_path / "stack.json").write_text(json.dumps(written))
    assert running(tmp_path) is None


def test_a_reused_pid_is_not_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        start = process_start(other.pid)
        assert start is not None
        assert Instance(other.pid, start - 1, "ready").end(timeout_s=5)
        assert other.poll() is None
        other.kill()


def test_ending_waits_until_the_process_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        start = process_start(other.pid)
        assert start is not None
        assert Instance(other.pid, start, "ready").end(timeout_s=30)
        assert process_start(other.pid) is None


def test_only_one_stack_holds_a_state_folder(tmp_path: Path) -> None:
    with only_one(tmp_path):
        with pytest.raises(StackError, match=f"already up \\(process {os.getpid()}\\)"), only_one(tmp_path):
            pass
        assert running(tmp_path) is not None
    assert running(tmp_path) is None
    with only_one(tmp_path):
        pass


def test_only_its_owner_can_open_a_state_folder(tmp_path: Path) -> None:
    with only_one(tmp_path / "var"):
        assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 1}', "[]"])
def test_a_damaged_file_means_that_nothing_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    assert running(tmp_path) is None
