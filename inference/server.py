"""One Triton process: how it is started, what it says, how it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections import deque
from pathlib import Path

from features.ports import port_problem
from features.settings import Settings
from inference.access import ADMIN_KEY, admin_token, launcher_folder
from inference.environment import Triton, environment
from inference.errors import PortInUse
from inference.guardian import SHARED_MEMORY, remove_regions

GRACE_S = 10.0
"""After SIGTERM, how long Triton may take; requests in flight are given the first half of it."""

MAX_LINE = 1 << 20
LOG_LINE = re.compile(r'^([IWEF])\d{4} [\d:.]+ +\d+ [^\]]*\] ?"?(.*?)"?$')
LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
ORDINARY_WITHOUT_GPU = frozenset(
    {
        "Unable to allocate pinned system memory, pinned memory pool will not be available: "
        "CUDA driver version is insufficient for CUDA runtime version",
        "Unable to allocate pinned system memory, pinned memory pool will not be available: "
        "no CUDA-capable device is detected",
        "CUDA memory pool disabled",
        "CudaDriverHelper has not been initialized.",
        "Error: Failed to initialize NVML",
        "DCGM unable to start: DCGM initialization error",
    }
)
"""What every start on a machine without a GPU says. Whole sentences, as others with the same words tell of
trouble."""

log = logging.getLogger("riptide.triton")


def check_ports(settings: Settings) -> None:
    """Refuse to start where Triton could not listen.

    Raises:
        PortInUse: naming the port and the setting.
    """
    for field in ("triton_http_port", "triton_grpc_port", "triton_metrics_port"):
        problem = port_problem(settings, field)
        if problem:
            raise PortInUse(problem)


def command(settings: Settings, triton: Triton, backends: Path, shm_prefix: str) -> list[str]:
    """Triton's command line. Explicit mode: a version appears or goes only when it is told so.

    No model is named: at its start Triton loads all listed versions of it or none, and a broken candidate
    would keep the stable one from coming back.
    """
    restricted = f"model-repository,shared-memory,trace,logging:{ADMIN_KEY}={admin_token(settings)}"
    host = settings.triton_host
    return [
        str(triton.program),
        f"--model-repository={settings.model_repository.resolve()}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        "--disable-auto-complete-config",
        # Strict readiness would call the whole server unready while any further version loads.
        "--strict-readiness=false",
        f"--exit-timeout-secs={GRACE_S / 2:.0f}",
        f"--http-address={host}",
        f"--http-port={settings.triton_http_port}",
        f"--grpc-address={host}",
        f"--grpc-port={settings.triton_grpc_port}",
        f"--metrics-address={host}",
        f"--metrics-port={settings.triton_metrics_port}",
        f"--grpc-restricted-protocol={restricted}",
        f"--http-restricted-api={restricted}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        *(_tracing(settings.traces_url) if settings.traced_ratio else ()),
    ]


def _tracing(url: str) -> list[str]:
    """What makes Triton send spans of those calls that come with a trace.

    Its own sampling is as good as off: one call in two billions. Others are traced whatever it says.
    """
    return [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={url}",
        "--trace-config=opentelemetry,resource=service.name=triton",
        "--trace-config=level=TIMESTAMPS",
        f"--trace-config=rate={(1 << 31) - 1}",
    ]


class TritonServer:
    """A started Triton. `start` makes one; `ended` completes when it is gone, whatever the reason."""

    def __init__(self, guardian: asyncio.subprocess.Process) -> None:
        self._guardian = guardian
        self._complaints: deque[str] = deque(maxlen=3)
        self.ended: asyncio.Task[int] = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, settings: Settings, triton: Triton, backends: Path, *, attempt: int) -> TritonServer:
        """Start Triton under its guardian.

        Raises:
            OSError: the program cannot be run.
        """
        remove_stale_regions()
        prefix = f"{_region_prefix(os.getpid())}{attempt}_"
        guardian = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(Path(__file__).with_name("guardian.py")),
            str(pid_file(settings).resolve()),
            prefix,
            str(GRACE_S),
            *command(settings, triton, backends, prefix),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment(triton),
            limit=MAX_LINE,
            # A Ctrl-C at the terminal is for the launcher, which then ends Triton in order. No session of its
            # own: where the kernel groups processes by session (autogroup), the low priority of a version
            # that loads would count within Triton alone, and not beside the gateway.
            process_group=0,
        )
        return cls(guardian)

    @property
    def complaint(self) -> str:
        """Why it ended, as far as its log said so."""
        return " / ".join(self._complaints) or "it did not say why"

    async def stop(self) -> int:
        """End Triton and everything that belongs to it; returns its exit status."""
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        return await asyncio.shield(self.ended)

    async def _follow(self) -> int:
        assert self._guardian.stdout is not None
        while True:
            try:
                raw = await self._guardian.stdout.readline()
            except ValueError:  # a line beyond MAX_LINE; the reader has dropped it
                continue
            if not raw:
                return await self._guardian.wait()
            self._relay(raw.decode(errors="replace").rstrip())

    def _relay(self, line: str) -> None:
        """Hand one line of Triton's log to ours, at its level."""
        match = LOG_LINE.match(line)
        level, text = (LEVELS[match[1]], match[2]) if match else (logging.INFO, line)
        if text in ORDINARY_WITHOUT_GPU:
            level = min(level, logging.DEBUG)
        elif line.startswith("error: "):
            level = logging.ERROR
        elif not text or text[0] in "+|":  # the tables that it prints at start
            level = logging.DEBUG
        if level >= logging.ERROR:
            self._complaints.append(text)
        if text:
            log.log(level, "%s", text)


def pid_file(settings: Settings) -> Path:
    """Where the process id of the running `tritonserver` stands."""
    return launcher_folder(settings) / "tritonserver.pid"


def remove_stale_regions() -> None:
    """Remove shared-memory regions of launchers that are gone together with their guardians."""
    for region in SHARED_MEMORY.glob(f"{_namespace_prefix()}*"):
        launcher = region.name.removeprefix(_namespace_prefix()).split("_")[0]
        if launcher.isdigit() and not Path(f"/proc/{launcher}").exists():
            remove_regions(region.name)


def _namespace_prefix() -> str:
    # /dev/shm may be shared with other containers, where the same process id is another process.
    return f"riptide_{Path('/proc/self/ns/pid').stat().st_ino}_"


def _region_prefix(launcher: int) -> str:
    return f"{_namespace_prefix()}{launcher}_"
