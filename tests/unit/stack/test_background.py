"""`stack up`, `down` and `status` as processes."""

from __future__ import annotations

import signal

import pytest

from tests.unit.stack.home import LIMIT_S, Home, read_until, until


def test_up_returns_when_ready_and_down_ends_all(home: Home) -> None:
    status, output = home.up()
    assert status == 0
    assert "Aliens" in output
    assert (home.folder / "var").stat().st_mode & 0o777 == 0o700, "others could read what users did"
    assert f"127.0.0.1:{home.ports['GRPC_PORT']}" in home.status()
    assert home.call("down") == (0, "down\n")
    assert home.ended() == ["gateway", "inference"]
    assert home.processes() == {}
    assert home.call("status") == (1, "not up\n")
    assert home.call("down") == (0, "not up\n")


def test_up_twice_says_so_and_starts_nothing(home: Home) -> None:
    home.up()
    before = home.processes()
    status, output = home.up()
    assert status == 0
    assert "already up" in output
    assert home.processes() == before


def test_two_ups_at_once_start_one(home: Home) -> None:
    both = [home.start("up", "--config", "tiny.toml") for _ in range(2)]
    told = [process.communicate(timeout=LIMIT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted("already up: ready" in text for text in told) == [False, True]
    assert sorted("up in the background" in text for text in told) == [False, True]


def test_up_waits_for_one_that_is_starting(home: Home) -> None:
    first = home.run(FAKE_TRAINING="slow")
    until((home.folder / "training-began").exists, "the training to begin")
    second = home.start("up", "--config", "tiny.toml")
    read_until(second, f"process {first.pid} is starting already")
    assert second.poll() is None
    (home.folder / "training-may-end").touch()
    assert f"already up: ready, process {first.pid}" in second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 0
    first.terminate()
    first.communicate(timeout=LIMIT_S)


def test_up_fails_when_the_one_that_it_waits_for_ends(home: Home) -> None:
    first = home.run(FAKE_TRAINING="slow")
    until((home.folder / "training-began").exists, "the training to begin")
    second = home.start("up", "--config", "tiny.toml")
    read_until(second, "is starting already")
    first.terminate()
    assert f"process {first.pid} has ended before it was ready" in second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 1
    first.communicate(timeout=LIMIT_S)


def test_up_starts_after_one_that_is_ending(home: Home) -> None:
    first = home.run(FAKE_GATEWAY="slow")
    read_until(first, "Ctrl-C ends it")
    first.terminate()
    until(lambda: "stopping" in home.status(), "the first one to begin to end")
    second = home.start("up", "--config", "tiny.toml")
    read_until(second, f"process {first.pid} is ending")
    (home.folder / "gateway-may-end").touch()
    assert "up in the background" in second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 0
    assert "ready" in home.status()
    assert str(first.pid) not in home.status()
    first.communicate(timeout=LIMIT_S)


def test_up_gives_the_reason_and_status_of_a_failed_start(home: Home) -> None:
    status, output = home.call("up", "--config", "tiny.toml", FAKE_TRAINING="bad input")
    assert status == 2
    assert "column title is missing" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_that_is_interrupted_leaves_nothing_behind(home: Home, number: signal.Signals) -> None:
    process = home.start("up", "--config", "tiny.toml", FAKE_TRAINING="slow")
    until((home.folder / "training-began").exists, "the training to begin")
    process.send_signal(number)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert home.processes() == {}
