"""What a load calls: a port of this machine, a method or path, and the bodies that take turns."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.riptide.v1 import recommender_pb2 as pb

RECOMMEND = "/riptide.v1.Recommender/Recommend"
RECORD_EVENTS = "/riptide.v1.Recommender/RecordEvents"
NOTHING = "/riptide.benchmark.Floor/Nothing"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
HTTP_RECOMMEND = "/recommend"

_PREFIX = struct.Struct(">BI")
"""Before each gRPC message: whether it is compressed, and its length
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Bodies are called in turn, and again from the start."""

    port: int
    path: str
    bodies: Sequence[bytes]
    """Serialized messages, or JSON."""
    protocol: Literal["grpc", "http"] = "grpc"
    kind: str = "user"
    """What a body stands for, in the singular."""


def recommend(port: int, users: Sequence[str], *, limit: int = 10, time: int = 0) -> Target:
    """`Recommend` of a gateway, or of a peer that has its contract, one body per user.

    `time`: Unix seconds; a page of a named moment takes no cached vector, so all are encoded inline.
    """
    bodies = [pb.RecommendRequest(user_id=user, limit=limit, time=time).SerializeToString() for user in users]
    return Target(port, RECOMMEND, bodies)


def recommend_over_http(port: int, users: Sequence[str], *, limit: int = 10, batch_as: str = "") -> Target:
    """The same as JSON, of a peer. `batch_as`: it wants a list of requests, here of one, under this name."""
    requests = [{"user_id": user, "limit": limit} for user in users]
    bodies = [json.dumps({batch_as: [one]} if batch_as else one).encode() for one in requests]
    return Target(port, HTTP_RECOMMEND, bodies, "http")


def record_events(port: int, users: Sequence[str], items: Sequence[str]) -> Target:
    """`RecordEvents`, one click per body: as many bodies as there are items, users in turn."""
    bodies = [
        pb.RecordEventsRequest(
            events=[pb.Event(user_id=users[i % len(users)], item_id=item, type=pb.EVENT_TYPE_CLICK)]
        ).SerializeToString()
        for i, item in enumerate(items)
    ]
    return Target(port, RECORD_EVENTS, bodies, kind="event")


def nothing(port: int) -> Target:
    """The empty call (`benchmarks.floor`)."""
    return Target(port, NOTHING, [b""], kind="empty call")


def framed(body: bytes) -> bytes:
    """A gRPC message as it goes over the wire, for generators that know HTTP/2 alone."""
    return _PREFIX.pack(0, len(body)) + body


def write_bodies(path: Path, bodies: Sequence[bytes]) -> None:
    """Writes bodies one after the other, each framed."""
    path.write_bytes(b"".join(map(framed, bodies)))


def read_bodies(path: Path) -> list[bytes]:
    """What `write_bodies` wrote."""
    return list(_unframed(path.read_bytes()))


def _unframed(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        _, length = _PREFIX.unpack_from(data, at)
        at += _PREFIX.size
        yield data[at : at + length]
        at += length
