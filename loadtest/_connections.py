"""The channels of this process to the gateway."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator

import gevent  # type: ignore[import-untyped]
import grpc
import grpc.experimental.gevent

from client.riptide.v1.recommender_pb2_grpc import RecommenderStub

# gRPC waits for each answer in a thread of gevent's pool. There are ten: ten slow calls would hide that
# others have been answered. More are started only as they are needed.
gevent.get_hub().threadpool.maxsize = 2000
# After Locust has patched the standard library, and before any gRPC object exists.
grpc.experimental.gevent.init_gevent()

_CONNECTIONS = 16
"""Of each process; its users are spread over them. The kernel gives a connection to one gateway worker."""
_CONNECT_S = 5.0


@functools.cache
def connect(address: str) -> Iterator[RecommenderStub]:
    """This process's connections in turn, for ever; made when first wanted: they would not survive a fork.

    Raises:
        ConnectionError: nothing answers at the address.
    """
    options = [
        # Else gRPC gives all channels of a process one connection.
        ("grpc.use_local_subchannel_pool", 1),
        # As the client does: `http_proxy` is for the web.
        ("grpc.enable_http_proxy", 0),
    ]
    channels = [grpc.insecure_channel(address, options=options) for _ in range(_CONNECTIONS)]
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_S)
    except grpc.FutureTimeoutError:
        raise ConnectionError(_nobody(address)) from None
    return itertools.cycle([RecommenderStub(channel) for channel in channels])


def look_for(address: str, *, for_calls: bool) -> None:
    """Is anybody there? With `for_calls`, by the connections that calls will use.

    Raises:
        ConnectionError: nobody is.
    """
    if for_calls:
        connect(address)
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError):
        raise ConnectionError(_nobody(address)) from None


def _nobody(address: str) -> str:
    return f"no gateway answers at {address}: make up, or -H HOST:PORT"
