"""The folder below which a deployment writes all but models. It tells what users did."""

from __future__ import annotations

from pathlib import Path


def make_state_folder(state_dir: Path) -> None:
    """Makes the state folder, for its owner alone (mode 0700). One that is there stays as somebody made it.

    Raises:
        OSError: it cannot be made.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
