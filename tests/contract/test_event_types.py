from __future__ import annotations

from client.riptide.v1 import recommender_pb2 as pb
from features.schema import EventType


def test_the_event_types_of_the_store_are_those_of_the_contract() -> None:
    ours = {f"EVENT_TYPE_{kind.name}": int(kind) for kind in EventType}
    theirs = dict(pb.EventType.items())
    assert theirs.pop("EVENT_TYPE_UNSPECIFIED") == 0
    assert ours == theirs
