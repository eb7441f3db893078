"""`stack run` as a process: what it does, what it says, and how it ends."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tests.ports import free_ports
from tests.unit.stack.home import LIMIT_S, Home, read_until, until


def test_run_prepares_serves_shows_a_page_and_leaves_nothing_behind(home: Home) -> None:
    process = home.run()
    output = read_until(process, "Ctrl-C ends it")
    for expected in (
        "trained",
        "published version 1",
        "Alien [1979]",
        "Aliens",
        "recommender version 1",
        "u1",
    ):
        assert expected in output
    assert any("sleep 600" in line for line in home.processes().values())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert home.ended() == ["gateway", "inference"]
    assert home.processes() == {}


def test_the_driver_of_rollouts_is_started_again_while_the_others_serve_on(home: Home) -> None:
    process = home.run()
    read_until(process, "Ctrl-C ends it")
    starts = home.folder / "driven"

    def drivers() -> list[int]:
        return [pid for pid, line in home.processes().items() if "-m rollout drive" in line]

    until(lambda: starts.exists() and len(drivers()) == 1, "the driver", home.processes)
    os.kill(drivers()[0], signal.SIGKILL)
    until(lambda: starts.read_text().count("started") == 2, "another driver", home.processes)
    assert process.poll() is None
    assert home.ended() == []
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert home.processes() == {}


@pytest.mark.parametrize("reason", ["DEGRADED_REASON_MODEL_UNAVAILABLE", "DEGRADED_REASON_COLD_START"])
def test_a_first_page_that_is_not_the_models_ends_the_run(home: Home, reason: str) -> None:
    status, output = home.call("run", "--config", "tiny.toml", FAKE_DEGRADED=reason)
    assert status == 1
    assert f"not come from the model ({reason.removeprefix('DEGRADED_REASON_')})" in output
    assert home.processes() == {}


def test_a_proxy_in_the_environment_is_not_asked(home: Home) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    process = home.run(http_proxy=nobody, grpc_proxy=nobody, no_proxy="", no_grpc_proxy="")
    read_until(process, "Ctrl-C ends it")
    process.terminate()
    process.communicate(timeout=LIMIT_S)


def test_a_remote_triton_is_proven_and_none_is_started(home: Home) -> None:
    process = home.run(RIPTIDE_TRITON_ADDRESS="127.0.0.1:1")
    read_until(process, "Ctrl-C ends it")
    assert "triton ready" in (home.folder / "var/log/inference.log").read_text()
    assert not any("-m inference" in line for line in home.processes().values())
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert home.processes() == {}


def test_a_remote_triton_with_wrong_answers_is_not_called_ready(home: Home) -> None:
    status, output = home.call(
        "run", "--config", "tiny.toml", RIPTIDE_TRITON_ADDRESS="127.0.0.1:1", FAKE_INFERENCE="wrong answers"
    )
    assert status == 1
    assert "Triton at 127.0.0.1:1" in output
    assert "scores differ by 0.5" in output
    assert "ready after" not in output
    assert home.processes() == {}


def test_the_log_of_the_run_before_is_kept(home: Home) -> None:
    assert home.call("run", "--config", "tiny.toml", FAKE_INFERENCE="broken")[0] == 1
    assert home.up()[0] == 0
    logs = home.folder / "var/log"
    assert "cannot find tritonserver" in (logs / "inference.log.1").read_text()
    assert "cannot find tritonserver" not in (logs / "inference.log").read_text()
    assert (logs / "gateway.log.1").exists()


def test_a_configuration_that_names_its_files_needs_no_more_to_run(home: Home) -> None:
    """With the real training, of a tiny model; what that exports is published, not the newest export."""
    shutil.rmtree(home.folder / "training")
    shop = home.folder / "shop"
    shop.mkdir()
    rows = [f"u{user},i{(user + n) % 20},{1_700_000_000 + n}" for user in range(8) for n in range(12)]
    (shop / "events.csv").write_text("\n".join(["user_id,item_id,time", *rows]) + "\n")
    (shop / "tiny.toml").write_text(
        '[data]\nname = "tiny"\nsource = "files"\nevents.path = "events.csv"\n'
        "[model]\nlayers = 1\nwidth = 8\nheads = 1\nhistory = 8\n[training]\nepochs = 1\n"
    )
    process = home.start("run", "--config", "shop/tiny.toml")
    read_until(process, "Ctrl-C ends it")
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert (home.folder / "var/exports/tiny/training.json").exists()
    assert (home.folder / "publish-words").read_text() == "publish --if-new --serve --export var/exports/tiny"


def test_a_killed_stack_takes_its_services_with_it(home: Home) -> None:
    process = home.run()
    read_until(process, "Ctrl-C ends it")
    process.kill()
    process.wait()
    until(
        lambda: sorted(home.ended()) == ["gateway", "inference"],
        "the services to end",
        lambda: (home.ended(), home.processes(), (home.folder / "var/log/gateway.log").read_text()),
    )
    # The stand-in abandons its `sleep`, and nobody is left to end it; the real launcher has tests of its own.
    until(
        lambda: all(line.startswith("sleep") for line in home.processes().values()), "the services to be gone"
    )
    for pid in home.processes():
        os.kill(pid, signal.SIGKILL)


def test_a_taken_port_is_said_in_one_line_before_anything_is_done(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.ports["TRITON_GRPC_PORT"])):
        status, output = home.call("run", "--config", "tiny.toml")
    assert status == 2
    assert output.count("\n") == 1
    assert str(home.ports["TRITON_GRPC_PORT"]) in output
    assert "RIPTIDE_TRITON_GRPC_PORT" in output
    assert not (home.folder / "var/data").exists()


def test_one_port_for_two_things_is_refused(home: Home) -> None:
    port = str(home.ports["GRPC_PORT"])
    status, output = home.call("run", "--config", "tiny.toml", RIPTIDE_HTTP_PORT=port)
    assert status == 2
    assert "RIPTIDE_GRPC_PORT and RIPTIDE_HTTP_PORT" in output


def test_a_refused_training_ends_the_run_with_its_sentence_and_status(home: Home) -> None:
    status, output = home.call("run", "--config", "tiny.toml", FAKE_TRAINING="bad input")
    assert status == 2
    assert "column title is missing" in output
    assert home.processes() == {}


def test_a_signal_while_training_ends_the_training(home: Home) -> None:
    process = home.run(FAKE_TRAINING="slow")
    until((home.folder / "training-began").exists, "the training to begin")
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert home.processes() == {}


def test_a_terminal_that_is_gone_does_not_keep_it_up(home: Home) -> None:
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "stack", "run", "--config", "tiny.toml"]
    process = subprocess.Popen(
        command,
        cwd=home.folder,
        env=home.environment,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    shown = b""
    while b"Ctrl-C ends it" not in shown:
        shown += os.read(ours, 4096)
    until(lambda: "ready" in home.status(), "the stack to say that it is ready")
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    process.wait(LIMIT_S)
    assert home.ended() == ["gateway", "inference"]
    assert home.processes() == {}


def test_a_state_folder_that_takes_no_more_does_not_keep_it_up(home: Home) -> None:
    process = home.run(FAKE_GATEWAY="slow")
    read_until(process, "Ctrl-C ends it")
    until(lambda: "ready" in home.status(), "the stack to say that it is ready")
    (home.folder / "var/stack.json.new").mkdir()  # no file can be written there
    process.terminate()
    until(lambda: "not up" in home.status(), "it to be called ready no more")
    assert process.poll() is None
    (home.folder / "gateway-may-end").touch()
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert home.ended() == ["gateway", "inference"]


def test_what_triton_cannot_work_in_is_said_before_the_training(home: Home) -> None:
    status, output = home.call("run", "--config", "tiny.toml", FAKE_INFERENCE="unfit")
    assert status == 2
    assert "built without a shared library" in output
    assert not (home.folder / "var/data").exists()


def test_with_a_remote_triton_no_local_one_need_be_fit(home: Home) -> None:
    process = home.run(RIPTIDE_TRITON_ADDRESS="127.0.0.1:1", FAKE_INFERENCE="unfit")
    read_until(process, "Ctrl-C ends it")
    process.terminate()
    process.communicate(timeout=LIMIT_S)


def test_what_was_loaded_is_not_loaded_again(home: Home) -> None:
    assert "3 events loaded" in home.up()[1]
    home.call("down")
    output = home.up()[1]
    assert "loaded with var/data/tiny already" in output
    assert "events loaded" not in output


def test_a_service_that_dies_is_named_with_its_log(home: Home) -> None:
    status, output = home.call("run", "--config", "tiny.toml", FAKE_INFERENCE="broken")
    assert status == 1
    assert "Triton ended by itself (status 2)" in output
    assert "var/log/inference.log" in output
    assert "cannot find tritonserver" in output
    assert home.processes() == {}


def test_run_beside_a_running_stack_is_refused(home: Home) -> None:
    home.up()
    status, output = home.call("run", "--config", "tiny.toml")
    assert status == 2
    assert "already up" in output
    assert "ready" in home.status()


def test_a_missing_configuration_is_named(home: Home) -> None:
    status, output = home.call("run", "--config", "nowhere.toml")
    assert status == 2
    assert output.startswith("nowhere.toml: ")


def test_a_second_run_starts_triton_before_the_steps_are_done(home: Home) -> None:
    assert home.up()[0] == 0
    home.call("down")
    (home.folder / "ended").unlink()
    process = home.run(FAKE_TRAINING="slow")
    until((home.folder / "training-began").exists, "the training to begin")
    until(lambda: any("-m gateway" in line for line in home.processes().values()), "the gateway to start")
    process.terminate()
    process.communicate(timeout=LIMIT_S)
    assert home.processes() == {}
