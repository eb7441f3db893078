"""What holds for all tests."""

from __future__ import annotations

import os

# Tests talk to this machine only; a proxy that is set for the way out (pip needs it) must not stand between.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
