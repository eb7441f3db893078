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
from inference.tensorflow_backend.background import in_background, lower_priority
if len(sys.argv) > 2:
    lower_priority(int(sys.argv[2]))
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
root, child, beside, *by = sys.argv[1:]
nicer = {"beside": 0, "beside a lower one": 3}
other = None
if beside in nicer:
    command = ["nice", "-n", str(nicer[beside]), "cat"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    other.stdin.write(b"!")
    other.stdout.read(1)  # so it is as nice as it is to be
subprocess.run([sys.executable, "-c", child, root, *by], check=True)
if other:
    other.stdin.close()
    other.wait()
"""


def run(beside: str, *by: str) -> dict[str, Any]:
    """What the child of a stand-in for Triton says, which has another child `beside` it or not.

    `by` how much it lowers its priority at first.
    """
    command = [sys.executable, "-c", TRITON, str(ROOT), CHILD, beside, *by]
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


def test_one_of_a_lower_priority_is_not_one_that_users_wait_for() -> None:
    report = run("beside a lower one")
    assert report["during"] == [report["usual"]] * 2
    report = run("beside", "3")
    assert report["during"] == [LOWEST, LOWEST]


@pytest.mark.parametrize(("by", "nice"), [(3, 3), (40, LOWEST)])
def test_a_process_of_lower_priority_has_it_in_threads_before_and_after(by: int, nice: int) -> None:
    code = """
import json, os, sys, threading
sys.path.insert(0, sys.argv[1])
from inference.tensorflow_backend.background import lower_priority
def own():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
lowered, report = threading.Event(), [own()]
before = threading.Thread(target=lambda: (lowered.wait(), report.append(own())))
before.start()
lower_priority(int(sys.argv[2]))
lowered.set()
after = threading.Thread(target=lambda: report.append(own()))
after.start()
before.join()
after.join()
print(json.dumps([*report, own()]))
"""
    command = [sys.executable, "-c", code, str(ROOT), str(by)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usual, *after = json.loads(said)
    assert after == [min(LOWEST, usual + nice)] * 3


@pytest.mark.parametrize("beside", ["beside", "alone"])
def test_an_error_of_the_work_is_that_of_the_call(beside: str) -> None:
    assert run(beside)["error"] == "no such signature"
