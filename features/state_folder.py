"""The state folder belongs to one account: it tells what users did."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path


def make_private(state_dir: Path) -> None:
    """Makes the state folder (mode 0700), or closes one that is there to everyone but its owner.

    A folder of another account is used as that account left it; so is one that is shared on purpose, such as
    `/tmp` (its sticky bit is set).
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(state_dir.stat().st_mode)
    if mode & 0o077 and not mode & stat.S_ISVTX:
        with contextlib.suppress(PermissionError):
            state_dir.chmod(mode & ~0o077)
