"""Triton dies, as by a crash, and its launcher starts it again."""

from __future__ import annotations

import math
import time

import psutil

from benchmarks.during.load import Load
from benchmarks.errors import BenchmarkError
from benchmarks.gateway_metrics import parse
from benchmarks.processes import http_get
from features.settings import Settings
from inference.server import pid_file

_NOTICED_S = 30.0
"""Within which a gateway has seen that there is no Triton, even one that nobody calls."""
_READY = "riptide_model_ready"
"""Of `/metrics`: of several workers the lowest, where `/readyz` would speak for one of them."""


class TritonKilled:
    """SIGKILL for `tritonserver`."""

    promises_no_failure = True
    degrades = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self) -> None:
        """Looks for it.

        Raises:
            BenchmarkError: it is none that runs here by these settings.
        """
        if self._settings.triton_address is not None:
            raise BenchmarkError(
                f"RIPTIDE_TRITON_ADDRESS is {self._settings.triton_address}: that Triton cannot be killed "
                "from here, as its launcher is elsewhere"
            )
        running_triton(self._settings)

    def happen(self, load: Load) -> list[str]:
        """Kills it, and waits until all workers of the gateway call it again; what did not go as it should.

        A worker takes half a second to notice, Triton several to start: who looks last has missed it, too.
        """
        victim, now = running_triton(self._settings), time.time()
        victim.kill()
        load.mark("Triton is killed", now)
        if not load.until(lambda: self._is_called() is False, _NOTICED_S):
            return [f"the gateway has not noticed after {_NOTICED_S:.0f} s that Triton was killed"]
        limit_s = self._settings.triton_ready_s
        if not load.until(lambda: self._is_called() is True, limit_s):
            return [f"Triton is not back {limit_s:.0f} s after the gateway missed it"]
        # Figures are cut at whole seconds. Of this one some pages are those of the time without it.
        load.mark("Triton is back", math.ceil(time.time()))
        return []

    def _is_called(self) -> bool | None:
        """Whether all workers call a version; None: the gateway does not say, so nothing is known."""
        host = self._settings.gateway_host
        said = http_get(self._settings.http_port, "/metrics", host)
        ready = parse(said.decode()).samples.get((_READY, frozenset())) if said is not None else None
        return None if ready is None else ready == 1


def running_triton(settings: Settings) -> psutil.Process:
    """The `tritonserver` that the launcher of these settings has started.

    Raises:
        BenchmarkError: there is none.
    """
    path = pid_file(settings)
    try:
        process = psutil.Process(int(path.read_text()))
        words = process.cmdline()
    except (OSError, ValueError, psutil.Error) as error:
        raise BenchmarkError(f"no Triton runs here by these settings ({path} names none): make up") from error
    # A process id may have come to mean another process.
    own = {
        f"--model-repository={settings.model_repository.resolve()}",
        f"--grpc-port={settings.triton_grpc_port}",
    }
    if "tritonserver" not in words[0] or not own <= set(words):
        raise BenchmarkError(f"{path}: process {process.pid} is not the tritonserver of these settings")
    return process
