"""Triton dies, as by a crash, and its launcher starts it again."""

from __future__ import annotations

import psutil

from benchmarks.during.load import Load
from benchmarks.errors import BenchmarkError
from benchmarks.processes import serves_model
from features.settings import Settings
from inference.server import pid_file

_NOTICED_S = 30.0
"""Within which a gateway has seen that there is no Triton, even one that nobody calls."""


class TritonKilled:
    """SIGKILL for `tritonserver`."""

    promises_no_failure = False

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
        """Kills it, and waits until the gateway calls it again; what did not go as it should."""
        running_triton(self._settings).kill()
        load.mark("Triton is killed")
        if not load.until(lambda: not self._is_called(), _NOTICED_S):
            return [f"the gateway has not noticed after {_NOTICED_S:.0f} s that Triton was killed"]
        limit_s = self._settings.triton_ready_s
        if not load.until(self._is_called, limit_s):
            return [f"Triton is not back {limit_s:.0f} s after the gateway missed it"]
        load.mark("Triton is back")
        return []

    def _is_called(self) -> bool:
        host = self._settings.gateway_target.rpartition(":")[0]
        return serves_model(self._settings.http_port, host)


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
