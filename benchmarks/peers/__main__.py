"""`python -m benchmarks.peers`: resolves each peer's requirements.in into its requirements.lock.

Needs `var/uv`, as `make lock` makes it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.peers.peer import PACKAGED

_HERE = Path(__file__).parent


def main() -> None:
    """The command."""
    for peer in PACKAGED:
        folder = _HERE / peer.folder
        options = "--quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate".split()
        command = ["var/uv/bin/uv", "pip", "compile", *options]
        command += ["--custom-compile-command", "python -m benchmarks.peers"]
        command += [str(folder / "requirements.in"), "-o", str(folder / "requirements.lock")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
