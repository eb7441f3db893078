"""The peers: how each is installed and started, and that it answers what the gateway answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import generators
from benchmarks.ask import ask
from benchmarks.bench import Bench, Server
from benchmarks.deployment import Deployment
from benchmarks.errors import BenchmarkError
from benchmarks.processes import free_port, listens, running, wait
from benchmarks.target import recommend, recommend_over_http

_HERE = Path(__file__).parent
_READY_S = 180.0
_INSTALL_S = 900.0
_WARM_UP_S = 4.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A server in `benchmarks/peers/<folder>/server.py`."""

    name: str
    folder: str
    protocol: Literal["grpc", "http"]
    flags: tuple[str, ...] = ()
    batch_as: str = ""
    """See `target.recommend_over_http`."""
    packaged: bool = True
    """Whether it is somebody's product, with an environment of its own."""

    @contextmanager
    def serving(self, deployment: Deployment) -> Iterator[Server]:
        """The peer, on the deployment's model and store.

        Raises:
            BenchmarkError: it cannot be installed, or does not start.
        """
        bench, settings = deployment.bench, deployment.settings
        python = self._installed(bench) if self.packaged else None
        port, log = free_port(), bench.log(self.folder + "".join(self.flags))
        version = settings.model_repository.absolute() / settings.model_name / "1"
        assert settings.store_folder is not None
        words = ["--port", str(port), "--version", str(version)]
        words += ["--store", str(settings.store_folder.absolute()), *self.flags]
        if self.protocol == "http":
            target = recommend_over_http(port, deployment.users, batch_as=self.batch_as)
        else:
            target = recommend(port, deployment.users)
        # What it leaves in its temporary folder goes with ours.
        variables = {"TMPDIR": str(bench.work), "PYTHONPATH": str(_HERE.parents[1])}
        with running(
            log, f"benchmarks.peers.{self.folder}.server", *words, python=python, variables=variables
        ) as process:
            wait(
                self.name,
                log,
                process,
                lambda: listens(port) and ask(target, target.bodies[0]) is not None,
                _READY_S,
            )
            # Adaptive batching adapts, interpreters specialise: what is measured is what comes after.
            generators.closed(target, bench.in_flight, _WARM_UP_S, own=True, folder=bench.work)
            yield Server(self.name, target, {"server": process})

    def _installed(self, bench: Bench) -> Path:
        """The interpreter of its environment, made if it is not there or of another lock."""
        environment = bench.settings.state_dir.absolute() / "peers" / self.folder
        python, mark = environment / "bin" / "python", environment / ".installed"
        lock = _HERE / self.folder / "requirements.lock"
        if mark.exists() and mark.read_bytes() == lock.read_bytes():
            return python
        bench.say(f"installing {self.name}")
        mark.unlink(missing_ok=True)
        environment.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        install = "install -qq --disable-pip-version-check --no-input --no-deps --no-compile --require-hashes"
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [str(python), "-m", "pip", *install.split(), "-r", str(lock)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
            if done.returncode:
                raise BenchmarkError(f"{self.name} cannot be installed: {done.stderr.strip()[-500:]}")
        mark.write_bytes(lock.read_bytes())
        return python


IN_PROCESS = Peer("grpc.aio, model in process, unbatched", "grpc_aio", "grpc", packaged=False)
IN_PROCESS_BATCHED = Peer(
    "grpc.aio, model in process, batched", "grpc_aio", "grpc", ("--batched",), packaged=False
)
RAY_SERVE = Peer("Ray Serve (gRPC)", "ray_serve", "grpc")
BENTOML = Peer("BentoML (HTTP)", "bentoml", "http", batch_as="request")
LITSERVE = Peer("LitServe (HTTP)", "litserve", "http")
PACKAGED = (RAY_SERVE, BENTOML, LITSERVE)


def compared(server: Server, reference: Server, count: int = 50) -> str:
    """A sentence on how many of `count` users get another page from one than from the other.

    Raises:
        BenchmarkError: one of them does not answer.
    """
    count = min(count, len(server.target.bodies))
    differ = disagreements(server, reference, count)
    return f"{server.name}: pages that differ from those of {reference.name}: {differ} of {count}."


def disagreements(server: Server, reference: Server, count: int) -> int:
    """Of `count` users, how many get another page from one than from the other.

    Raises:
        BenchmarkError: one of them does not answer.
    """
    differ = 0
    for i in range(min(count, len(server.target.bodies))):
        pages = [ask(one.target, one.target.bodies[i]) for one in (server, reference)]
        if None in pages or not pages[0]:
            raise BenchmarkError(f"{server.name} or {reference.name} answers no page")
        differ += pages[0] != pages[1]
    return differ
