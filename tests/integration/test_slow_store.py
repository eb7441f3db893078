"""A shared store is held up for a load test, and goes on by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.during.store import RedisBrake
from benchmarks.errors import BenchmarkError
from features.redis_address import parse
from tests.valkey import cluster, one_server


def test_nobody_is_answered_until_the_time_is_over(tmp_path: Path) -> None:
    with one_server(tmp_path) as server:
        brake = RedisBrake(parse(f"redis://{server.address}"))
        brake.check()
        began = time.monotonic()
        with brake.hold(1.0):
            pass
        assert server.ask("PING") == b"PONG"
        assert time.monotonic() - began >= 0.9, "not before"


def test_every_server_of_a_cluster_is_held_up(tmp_path: Path) -> None:
    with cluster(tmp_path) as servers:
        for server in servers:
            began = time.monotonic()
            with RedisBrake(parse(f"redis+cluster://{servers[0].address}")).hold(1.0):
                pass
            assert server.ask("PING") == b"PONG"
            assert time.monotonic() - began >= 0.9


def test_a_server_that_does_not_allow_it_is_said_to(tmp_path: Path) -> None:
    with one_server(tmp_path) as server:
        server.ask("ACL", "SETUSER", "riptide", "on", ">secret", "~*", "+@all", "-client|pause")
        with pytest.raises(BenchmarkError, match="the store cannot be paused: RIPTIDE_STORE refuses "):
            RedisBrake(parse(f"redis://riptide:secret@{server.address}")).check()
