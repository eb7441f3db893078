"""A version that wants too much memory while it loads is refused it; in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inference.tensorflow_backend import memory_guard as module
from inference.tensorflow_backend.memory_guard import FIRST_TO_GO, free_bytes

ROOT = Path(__file__).parents[3]
CHILD = """
import json, mmap, resource, sys
sys.path.insert(0, sys.argv[1])
from inference.tensorflow_backend.memory_guard import free_bytes, memory_guard
def oom():
    return int(open("/proc/self/oom_score_adj").read())
def gets(size):
    try:
        # Never touched: it costs nothing.
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        return True
    except OSError:
        return False
size = int(0.9 * free_bytes())
report = {"oom": [oom()], "limit": [resource.getrlimit(resource.RLIMIT_DATA)]}
try:
    with memory_guard(limit=sys.argv[2] == "limit", expendable=sys.argv[2] == "expendable"):
        report |= {"much": gets(size), "little": gets(1 << 26)}
        report["oom"].append(oom())
        raise ValueError
except ValueError:
    pass
report["oom"].append(oom())
report["limit"].append(resource.getrlimit(resource.RLIMIT_DATA))
report["afterwards"] = gets(size)
print(json.dumps(report))
"""


def run(limit: str) -> dict[str, Any]:
    command = [sys.executable, "-c", CHILD, str(ROOT), limit]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] = json.loads(said)
    return report


def test_more_than_its_share_of_the_free_memory_is_refused_while_a_version_loads() -> None:
    report = run("limit")
    assert (report["much"], report["little"], report["afterwards"]) == (False, True, True)


def test_without_a_limit_nothing_is_refused() -> None:
    assert run("none")["much"]


def test_the_loading_process_is_the_first_to_go_and_no_longer_when_it_has_failed() -> None:
    report = run("limit")
    before, during, after = report["oom"]
    assert during == min(1000, before + FIRST_TO_GO)
    assert after == before
    assert report["limit"][0] == report["limit"][1]


def test_one_that_users_can_do_without_stays_the_first_to_go() -> None:
    before, during, after = run("expendable")["oom"]
    assert during == after == min(1000, before + FIRST_TO_GO)


def group(folder: Path, limit: str) -> Path:
    """A control group of version 2 that uses 300 bytes, 100 of them file cache."""
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("300\n")
    (folder / "memory.stat").write_text("anon 200\ninactive_file 100\n")
    return folder


@pytest.mark.parametrize(("limit", "free"), [("1000", 800), ("100", 0)])
def test_a_control_group_with_less_room_than_the_machine_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: int
) -> None:
    names = module._GROUPS[0][:3]
    monkeypatch.setattr(module, "_GROUPS", ((*names, group(tmp_path, limit)),))
    assert free_bytes() == free


def test_a_control_group_without_a_limit_leaves_the_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = module._GROUPS[0][:3]
    monkeypatch.setattr(module, "_GROUPS", ((*names, group(tmp_path, "max")),))
    assert free_bytes() > 1 << 26
