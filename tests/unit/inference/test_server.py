"""What Triton's log becomes, and which files a launcher has to itself. A shell script stands for Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.settings import Settings
from inference.access import launcher_folder
from inference.environment import Triton
from inference.server import TritonServer, command, pid_file

ORDINARY = 'E1124 05:51:52.302 123 server.cc:241] "CudaDriverHelper has not been initialized."'
REAL = 'E1124 05:51:52.302 123 model.cc:99] "CUDA out of memory: tried to allocate 2 GiB"'


async def run(tmp_path: Path, lines: list[str]) -> TritonServer:
    """A Triton that says `lines` and ends."""
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\nexit 1\n")
    program.chmod(0o755)
    settings = Settings(state_dir=tmp_path, model_repository=tmp_path)
    server = await TritonServer.start(settings, Triton(program, None, tmp_path), tmp_path, attempt=1)
    assert await server.ended == 1
    return server


async def test_a_complaint_about_the_gpu_is_told(tmp_path: Path) -> None:
    assert "CUDA out of memory" in (await run(tmp_path, [ORDINARY, REAL])).complaint


async def test_what_every_start_without_a_gpu_says_is_no_complaint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "riptide.triton")
    assert (await run(tmp_path, [ORDINARY])).complaint == "it did not say why"
    assert caplog.records == []


def test_two_launchers_with_one_state_folder_share_no_file(tmp_path: Path) -> None:
    one, other = (Settings(state_dir=tmp_path, triton_grpc_port=port) for port in (8001, 9001))
    assert launcher_folder(one) != launcher_folder(other)
    assert pid_file(one).parent == launcher_folder(one)
    assert pid_file(other).parent == launcher_folder(other)


@pytest.mark.parametrize(
    ("ratio", "disabled", "traces"), [(0.0, "", False), (0.5, "", True), (0.5, "true", False)]
)
def test_it_sends_spans_where_calls_are_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, disabled: str, traces: bool
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)
    settings = Settings(state_dir=tmp_path, trace_ratio=ratio)
    words = command(settings, Triton(tmp_path / "tritonserver", None, tmp_path), tmp_path, "prefix")
    assert any(word.startswith("--trace-config") for word in words) is traces
