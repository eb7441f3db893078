"""BentoML, serving `service.Recommender`.

python -m benchmarks.peers.bentoml.server --port P --version FOLDER --store FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.peers.bentoml.service import STORE, VERSION


def main() -> None:
    """Becomes `bentoml serve`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.bentoml.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--store", required=True)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bentoml-"))  # whoever starts this deletes its TMPDIR afterwards
    os.environ |= {
        VERSION: arguments.version,
        STORE: arguments.store,
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    service = "benchmarks.peers.bentoml.service:Recommender"
    command = ["-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
