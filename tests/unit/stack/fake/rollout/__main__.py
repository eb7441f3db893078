"""Publishes version 1 if there is none; the words it is called with are kept for the test.

Asked to drive: runs until SIGTERM, and notes each start.
"""

import signal
import sys
import time
from pathlib import Path


def end(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if sys.argv[1:] == ["drive"]:
    signal.signal(signal.SIGTERM, end)
    with Path("driven").open("a") as log:
        log.write("started\n")
    time.sleep(600)
Path("publish-words").write_text(" ".join(sys.argv[1:]))
version = Path("model_repository/recommender/1")
print("nothing new" if version.exists() else "published version 1")
version.mkdir(parents=True, exist_ok=True)
