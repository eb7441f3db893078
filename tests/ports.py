"""Ports for the servers that tests start."""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _EACH, _PROCESSES = 20_000, 3_000, 4
"""Below the ports that the kernel itself gives away: from asking for one to using it seconds may pass."""
_turns = itertools.count(random.randrange(_EACH))


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback address that nothing listens on now. Each of several processes that run
    tests has its own, and the same one comes again after thousands of others.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES
    found: list[int] = []
    while len(found) < count:
        port = _FIRST + process * _EACH + next(_turns) % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
