"""Work at the lowest priority beside others that serve; at the usual one where nobody is disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inference.tensorflow_backend.background import LOWEST

ROOT = Path(__file__).parents[3]
CHILD = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[1])
from inference.tensorflow_backend.background import in_background
def work():
    inherited = []
    thread = threading.Thread(target=lambda: inherited.append(own()))
    thread.start()
    thread.join()
    return [own(), *inherited]
def own():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
def fail():
    raise ValueError("no such signature")
report = {"usual": own(), "during": in_background(work), "after": own()}
try:
    in_background(fail)
except ValueError as error:
    report["error"] = str(error)
print(json.dumps(report))
"""
TRITON = """
import subprocess, sys
root, child, beside = sys.argv[1:]
other = subprocess.Popen(["cat"], stdin=subprocess.PIPE) if beside == "beside" else None
subprocess.run([sys.executable, "-c", child, root], check=True)
if other:
    other.stdin.close()
    other.wait()
"""


def run(beside: str) -> dict[str, Any]:
    """What the child of a stand-in for Triton says, which has another child `beside` it or not."""
    command = [sys.executable, "-c", TRITON, str(ROOT), CHILD, beside]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report: dict[str, Any] = json.loads(said)
    return report


def test_beside_others_work_has_the_lowest_priority_and_the_caller_keeps_its_own() -> None:
    report = run("beside")
    assert report["during"] == [LOWEST, LOWEST]
    assert report["after"] == report["usual"] < LOWEST


def test_where_nothing_else_runs_work_is_not_held_back() -> None:
    report = run("alone")
    assert report["during"] == [report["usual"]] * 2


@pytest.mark.parametrize("beside", ["beside", "alone"])
def test_an_error_of_the_work_is_that_of_the_call(beside: str) -> None:
    assert run(beside)["error"] == "no such signature"
