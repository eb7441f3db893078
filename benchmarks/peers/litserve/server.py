"""LitServe (https://lightning.ai/docs/litserve): one inference worker, batches, a short wait for them.

python -m benchmarks.peers.litserve.server --port P --version FOLDER --store FOLDER
"""

# No `from __future__ import annotations`: LitServe reads the annotations as they are.
import argparse
from collections.abc import Sequence
from typing import Any

import litserve

from benchmarks.peers.pages import Asked, Pages, as_json
from benchmarks.target import HTTP_RECOMMEND

_MAX_BATCH = 64
_BATCH_TIMEOUT_S = 0.002


class Recommender(litserve.LitAPI):
    """Batches of requests to batches of pages."""

    version = store = ""

    def setup(self, device: str) -> None:
        """Loads the model, in the worker's process."""
        from pathlib import Path

        self.pages = Pages(Path(self.version), Path(self.store))

    def decode_request(self, request: dict[str, Any]) -> Asked:
        """One JSON body."""
        return Asked(request["user_id"], request["limit"])

    def batch(self, inputs: Sequence[Asked]) -> Sequence[Asked]:
        """They are a batch as they are."""
        return inputs

    def predict(self, x: Sequence[Asked]) -> list[dict[str, Any]]:
        """The pages of a batch."""
        return [as_json(page) for page in self.pages.of(x)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer per request."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """JSON as it is."""
        return output


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.litserve.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--store", required=True)
    arguments = parser.parse_args()
    api = Recommender(max_batch_size=_MAX_BATCH, batch_timeout=_BATCH_TIMEOUT_S, api_path=HTTP_RECOMMEND)
    api.version, api.store = arguments.version, arguments.store
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=1,
        generate_client_file=False,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
