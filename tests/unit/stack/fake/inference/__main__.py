"""Stands for Triton: runs until SIGTERM, with a child that would rather stay; logs when it ends.

With a remote address: proves it, and ends. Asked to check: says whether it is fit.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

if sys.argv[1:] == ["check"]:
    if os.environ.get("FAKE_INFERENCE") == "unfit":
        print("this Python was built without a shared library", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
if os.environ.get("FAKE_INFERENCE") == "broken":
    print("cannot find tritonserver: set RIPTIDE_TRITONSERVER")
    sys.exit(2)
if "RIPTIDE_TRITON_ADDRESS" in os.environ:
    if os.environ.get("FAKE_INFERENCE") == "wrong answers":
        print("golden request 3: scores differ by 0.5")
        sys.exit(1)
    print("triton ready: a stand-in", flush=True)
    sys.exit(0)


def end(*_):
    # When its parent dies, Linux may say so more than once: the threads of the parent die one by one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


# Before it says that it is ready: from then on it may be told to end.
signal.signal(signal.SIGTERM, end)
# Of another session, and ignored by its parent when that ends: what a crashed launcher leaves behind.
subprocess.Popen(["sleep", "600"], start_new_session=True)
try:
    print("triton ready: a stand-in", flush=True)
    time.sleep(600)
finally:
    with Path("ended").open("a") as log:
        log.write("inference\n")
