"""What holds for all tests."""

from __future__ import annotations

import os
import signal

# Tests talk to this machine only; a proxy that is set for the way out (pip needs it) must not stand between.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that. Those that
# tests interrupt must see it, however the tests were started.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Whoever ends the tests from outside gets what Ctrl-C gets: fixtures end what they have started.
signal.signal(signal.SIGTERM, signal.default_int_handler)
