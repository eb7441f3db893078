"""Memory of each process at 10^6 items and 10^6 users, two gateway workers, after load."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks import generators
from benchmarks.bench import Bench
from benchmarks.deployment import deployed
from benchmarks.models import synthetic
from benchmarks.processes import family
from benchmarks.section import Grid, Section

ITEMS = USERS = 1_000_000
_MIB = 1 << 20


def run(bench: Bench) -> Section:
    """Measures, once: it hardly differs from one time to the next."""
    section = Section(f"Memory: {ITEMS:,} items, {USERS:,} users, small model, 2 gateway workers")
    model = synthetic(bench, ITEMS)
    with deployed(bench, "memory", model, users=USERS, drive=True) as deployment:
        gateway = deployment.gateway(workers=2)
        generators.closed(gateway.target, bench.in_flight, bench.seconds, own=True, folder=bench.work)
        rows = []
        proportional = 0.0
        for name, process in gateway.processes.items():
            for member in family(process):
                with suppress(psutil.NoSuchProcess):
                    used = member.memory_full_info()
                    proportional += used.pss
                    rows.append(
                        [
                            name,
                            process_name(member.cmdline()),
                            f"{used.rss / _MIB:.0f}",
                            f"{used.pss / _MIB:.0f}",
                        ]
                    )
        rows.append(["all", "", "", f"{proportional / _MIB:.0f}"])
        version = deployment.settings.model_repository / deployment.settings.model_name / "1"
        files = [(name, version / name) for name in ("model.savedmodel", "catalog.lmdb")]
        assert deployment.settings.store_folder is not None
        files.append(("store", deployment.settings.store_folder))
        on_disk = [[name, f"{_bytes(path) / _MIB:.0f}"] for name, path in files]
    section.grids.append(Grid("", ["part", "process", "resident, MiB", "proportional, MiB"], rows))
    section.grids.append(Grid("On disk", ["what", "MiB"], on_disk))
    section.notes.append(
        "Resident counts what processes share once for each, proportional divides it among them: catalogue "
        "and store are memory-mapped, so workers share one copy, which the kernel may drop and read again."
    )
    return section


def process_name(command: list[str]) -> str:
    """What a process is, from its command line."""
    text = " ".join(command)
    if "triton_python_backend_stub" in text:
        models = [part for word in command for part in Path(word).parts]
        return (
            "TensorFlow, encoder" if any("encoder" in part for part in models) else "TensorFlow, recommender"
        )
    for word, name in (
        ("multiprocessing.resource_tracker", "resource tracker"),
        ("multiprocessing", "worker"),
        ("-m inference", "launcher"),
        ("-m gateway", "gateway"),
        ("-m rollout", "driver"),
        ("tritonserver", "tritonserver"),
    ):
        if word in text:
            return name
    return Path(command[0]).name if command else "?"


def _bytes(path: Path) -> int:
    """Of a file or of all in a folder, as far as they take disk."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())
