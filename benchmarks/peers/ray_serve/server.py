"""Ray Serve behind its gRPC proxy: one replica, `serve.batch`, no access logs
(https://docs.ray.io/en/latest/serve/advanced-guides/grpc-guide.html), and what Ray advises for throughput
(https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html).

    python -m benchmarks.peers.ray_serve.server --port P --version FOLDER --store FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import tempfile
import threading
from pathlib import Path

# Nothing is sent anywhere, and no token is written into the home folder: all is on loopback, for minutes.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
# But for direct ingress: its replicas listen on ports beside the proxy's, on whatever address they choose.
os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}

import ray
from ray import serve
from ray.serve.config import gRPCOptions
from ray.serve.schema import LoggingConfig

from benchmarks.peers.pages import Asked, Pages, as_message
from client.riptide.v1 import recommender_pb2 as pb

_ADD_SERVICER = "client.riptide.v1.recommender_pb2_grpc.add_RecommenderServicer_to_server"
_OBJECT_STORE_BYTES = 100 << 20
_LOOPBACK = "127.0.0.2"
"""Ray takes 127.0.0.1 for a mistake, and the address of a network card instead."""


class Recommender:
    """Pages."""

    def __init__(self, version: str, store: str) -> None:
        self.pages = Pages(Path(version), Path(store))

    async def Recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """The method of the contract, by its name."""
        return await self.batch(Asked(request.user_id, request.limit))

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def batch(self, asked: list[Asked]) -> list[pb.RecommendResponse]:
        """A batch of requests to their pages."""
        records = await self.pages.read(asked)
        # Off the event loop; `serve.batch` runs one batch at a time.
        pages = await asyncio.to_thread(self.pages.scored, asked, records)
        return [as_message(page) for page in pages]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.ray_serve.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--store", required=True)
    arguments = parser.parse_args()
    stop = threading.Event()
    # In /tmp itself: the sockets in it must have short paths.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address=_LOOPBACK,
            _temp_dir=folder,
            runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}},
        )
        # After Ray has set its own, which would leave its processes behind.
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": "127.0.0.1", "port": free_port()},  # it cannot do without
                grpc_options=gRPCOptions(port=arguments.port, grpc_servicer_functions=[_ADD_SERVICER]),
                logging_config=LoggingConfig(enable_access_log=False),
            )
            deployment = serve.deployment(
                num_replicas=1,
                max_ongoing_requests=256,
                ray_actor_options={"num_cpus": 0.1},
                logging_config=LoggingConfig(enable_access_log=False),
            )(Recommender)
            serve.run(deployment.bind(arguments.version, arguments.store))
            stop.wait()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
