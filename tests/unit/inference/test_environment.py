"""Finding Triton, and saying what is wrong with where it is."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest

from features.settings import Settings
from inference.__main__ import main
from inference.access import admin_token, launcher_folder
from inference.backend_folder import write_backend_folder
from inference.environment import Interpreter, Triton, check_interpreter, environment, find_triton, probe
from inference.errors import TritonNotFound, UnfitEnvironment
from inference.server import command

FIT = Interpreter(
    executable=Path("triton/bin/python"),
    python="3.11",
    shared=True,
    libpython_folder="/python/lib",
    numpy="1.26.4",
    tensorflow="2.21.0",
    wheel="0.7.0",
    wheel_folder="/triton/site-packages/pytriton",
    libc="2.36",
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"numpy": "2.1.0"}, "numpy 2.1.0 is installed there.*needs numpy < 2"),
        ({"numpy": None}, "needs numpy < 2"),
        ({"shared": False}, "built without a shared library"),
        ({"tensorflow": None}, "TensorFlow is not installed there"),
    ],
)
def test_an_unfit_environment_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UnfitEnvironment, match=says):
        check_interpreter(dataclasses.replace(FIT, **changes))  # type: ignore[arg-type]  # any field


def test_a_fit_environment_is_accepted() -> None:
    check_interpreter(FIT)


def test_an_interpreter_tells_what_it_is() -> None:
    assert probe(Path(sys.executable)).python == "{}.{}".format(*sys.version_info)


def test_a_missing_interpreter_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(TritonNotFound, match="RIPTIDE_TRITON_PYTHON"):
        probe(tmp_path / "python")


def test_a_program_that_is_none_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(TritonNotFound, match="RIPTIDE_TRITONSERVER"):
        find_triton(Settings(tritonserver=tmp_path / "tritonserver"))


def test_the_check_says_what_is_wrong_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inference", "check"])
    monkeypatch.setenv("RIPTIDE_STATE_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("RIPTIDE_TRITONSERVER", str(tmp_path / "tritonserver"))
    assert main() == 2
    assert "RIPTIDE_TRITONSERVER" in capsys.readouterr().err
    assert not (tmp_path / "var").exists()


def test_a_program_that_does_not_load_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\necho \"version 'GLIBC_2.35' not found\" >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("inference.environment.probe", lambda _: FIT)
    with pytest.raises(UnfitEnvironment, match=r"needs glibc 2.35 or newer, and this machine has 2.36"):
        find_triton(Settings(tritonserver=program))


def test_a_program_is_tried_in_the_environment_that_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\ncase $LD_LIBRARY_PATH in *:/needed) echo --model-repository;; esac\n")
    program.chmod(0o755)
    monkeypatch.setattr("inference.environment.probe", lambda _: FIT)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/needed")
    assert find_triton(Settings(tritonserver=program)).program == program


def test_a_python_without_a_stub_is_told_which_there_are(tmp_path: Path) -> None:
    wheel = tmp_path / "pytriton"
    (wheel / "tritonserver" / "python_backend_stubs" / "3.8").mkdir(parents=True)
    triton = Triton(tmp_path / "tritonserver", dataclasses.replace(FIT, wheel_folder=str(wheel)), None)
    with pytest.raises(UnfitEnvironment, match=r"no stub for Python 3.11; it has 3.8"):
        write_backend_folder(triton, tmp_path / "backends")


def test_the_stub_finds_its_own_python_first() -> None:
    variables = environment(Triton(Path("tritonserver"), FIT, None))
    assert variables["PATH"].split(":")[0] == str(Path("triton/bin").absolute())
    assert variables["LD_LIBRARY_PATH"].split(":")[:2] == [
        "/python/lib",
        "/triton/site-packages/nvidia_pytriton.libs",
    ]


def test_our_settings_and_packages_stay_out_of_tritons_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("RIPTIDE_HOST", "127.0.0.1")
    variables = environment(Triton(Path("tritonserver"), FIT, None))
    assert not {"PYTHONPATH", "RIPTIDE_HOST"} & variables.keys()


def test_triton_binds_the_configured_address_only(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, triton_host="127.0.0.7", triton_grpc_port=4321)
    line = command(settings, Triton(Path("tritonserver"), FIT, None), tmp_path, "prefix_")
    assert [arg.split("=")[1] for arg in line if "-address=" in arg] == ["127.0.0.7"] * 3
    assert "--grpc-port=4321" in line


def test_triton_sends_its_spans_where_the_gateway_does_and_only_if_calls_are_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(ratio: float) -> list[str]:
        settings = Settings(state_dir=tmp_path, trace_ratio=ratio)
        line = command(settings, Triton(Path("tritonserver"), FIT, None), tmp_path, "prefix_")
        return [word.removeprefix("--trace-config=") for word in line if "trace-config" in word]

    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert told(0) == []
    assert told(0.01)[:2] == ["mode=opentelemetry", "opentelemetry,url=http://localhost:4318/v1/traces"]
    assert {"level=TIMESTAMPS", "rate=2147483647"} <= set(told(0.01))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/")
    assert "opentelemetry,url=http://collector:4318/v1/traces" in told(0.01)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/here")
    assert "opentelemetry,url=http://traces:1/here" in told(0.01)


def test_the_token_is_private_and_stays_the_same(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    triton = Triton(Path("tritonserver"), FIT, None)
    first, second = (command(settings, triton, tmp_path, "prefix_") for _ in range(2))
    assert first == second
    assert (launcher_folder(settings) / "admin_token").stat().st_mode & 0o077 == 0


def test_a_token_that_could_not_be_written_is_not_left_behind_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path)

    def full(_: int) -> str:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("features.token_file.secrets.token_hex", full)
        with pytest.raises(OSError, match="no space"):
            admin_token(settings)
    assert list(launcher_folder(settings).iterdir()) == []
    assert len(admin_token(settings)) == 32


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    path = launcher_folder(Settings(state_dir=tmp_path)) / "admin_token"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UnfitEnvironment, match=f"{path}: is empty"):
        admin_token(Settings(state_dir=tmp_path))


def test_the_state_folder_of_a_launcher_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        admin_token(Settings(state_dir=tmp_path / "var"))
    finally:
        os.umask(before)
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
