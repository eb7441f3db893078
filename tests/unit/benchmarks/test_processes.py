"""What is started is ended, whatever happens."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.memory import process_name
from benchmarks.processes import (
    cpu_s,
    environment,
    family,
    free_port,
    listens,
    programs,
    run_module,
    running_command,
    wait,
)
from features.settings import Settings

STUBBORN_CHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN_CHILD!r}]).wait()"


def test_children_that_stay_when_their_parent_ends_are_ended_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_command(log, sys.executable, "-c", PARENT, env=os.environ) as process:
        wait("the child", log, process, lambda: b"up" in log.read_bytes())
        members = family(process)
        assert len(members) == 2
    gone, alive = psutil.wait_procs(members, timeout=5)
    assert not alive
    assert len(gone) == 2


def test_an_error_in_the_block_ends_what_was_started(tmp_path: Path) -> None:
    found: list[psutil.Process] = []

    def failing() -> None:
        with running_command(
            tmp_path / "log", sys.executable, "-c", "import time; time.sleep(600)", env=os.environ
        ) as one:
            found.append(one)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert not psutil.wait_procs(found, timeout=5)[1]


def test_a_program_that_ends_instead_of_being_ready_is_named_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running_command(log, sys.executable, "-c", "print('no such model')", env=os.environ) as process,
        pytest.raises(BenchmarkError, match=f"the server did not start; {log}"),
    ):
        wait("the server", log, process, lambda: False)
    assert "no such model" in log.read_text()


def test_cpu_is_that_of_a_process_with_its_children(tmp_path: Path) -> None:
    busy = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print("up", flush=True)
time.sleep(600)
"""
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}]).wait()"
    log = tmp_path / "log"
    with running_command(log, sys.executable, "-c", parent, env=os.environ) as process:
        wait("the child", log, process, lambda: b"up" in log.read_bytes())
        assert cpu_s(process) >= 0.3


def test_what_a_module_says_when_it_fails_is_not_lost() -> None:
    with pytest.raises(BenchmarkError, match="--items"):
        run_module("benchmarks.synthetic_export", "--out", "nowhere")


def test_settings_are_environment_variables() -> None:
    assert environment(grpc_port=7)["RIPTIDE_GRPC_PORT"] == "7"


def test_settings_of_the_callers_shell_do_not_reach_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", "redis://elsewhere")
    monkeypatch.setenv("riptide_workers", "7")
    monkeypatch.setenv("OTHER", "stays")
    found = environment(state_dir="here")
    assert {name for name in found if name.upper().startswith("RIPTIDE_")} == {"RIPTIDE_STATE_DIR"}
    assert found["OTHER"] == "stays"


def test_where_triton_is_is_the_callers_to_say() -> None:
    settings = Settings(triton_python=Path("there/python"), tritonserver=Path("/bin/tritonserver"))
    assert programs(settings) == {
        "triton_python": Path("there/python").absolute(),
        "tritonserver": Path("/bin/tritonserver"),
    }
    assert "tritonserver" not in programs(settings.model_copy(update={"tritonserver": None}))


def test_a_free_port_is_one_that_nobody_listens_on() -> None:
    began = time.monotonic()
    assert not listens(free_port())
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/x/bin/tritonserver --model-repository=/r", "tritonserver"),
        ("/x/triton_python_backend_stub /r/recommender/1/model.py shm 4", "TensorFlow, recommender"),
        ("/x/triton_python_backend_stub /r/model.py shm 4 user_encoder_0", "TensorFlow, encoder"),
        ("/x/python -m gateway", "gateway"),
        ("/x/python -m rollout drive", "driver"),
        ("/x/python -m inference", "launcher"),
        ("", "?"),
    ],
)
def test_processes_are_named_by_what_they_are(command: str, name: str) -> None:
    assert process_name(command.split()) == name
