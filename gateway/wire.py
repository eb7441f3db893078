"""Responses in protobuf's wire format, put together from parts that are kept serialized.

Filling the messages of a page took longer than anything else in a request. Most of a line is the same on
every page, so that part is serialized once per item; score, rank and reason are appended. Protobuf allows
that: fields may come in any order, and serialized messages are merged by writing one after the other
(https://protobuf.dev/programming-guides/encoding/). `tests/unit/gateway/test_wire.py` holds it to the .proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import CatalogItem
from gateway.page import PageItem

_VARINT, _LENGTH_DELIMITED, _FIXED32 = 0, 2, 5
_RESPONSE = pb.RecommendResponse.DESCRIPTOR.fields_by_name
_ITEM = pb.RecommendedItem.DESCRIPTOR.fields_by_name
_STAGES = pb.StageTimes.DESCRIPTOR.fields_by_name


def _tag(field_number: int, wire_type: int) -> int:
    tag = field_number << 3 | wire_type
    assert tag < 128, "a tag of more than one byte"
    return tag


def varint(number: int) -> bytes:
    """A number as protobuf writes lengths."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ITEMS_TAG = bytes((_tag(_RESPONSE["items"].number, _LENGTH_DELIMITED),))
_REASON_TAG = bytes((_tag(_ITEM["reason"].number, _LENGTH_DELIMITED),))
_SCORE_TAG, _RANK_TAG = _tag(_ITEM["score"].number, _FIXED32), _tag(_ITEM["rank"].number, _VARINT)
# Tag and value of the score, tag and value of the rank. Ranks end at 100, so they are varints of one byte.
_SCORE_AND_RANK = struct.Struct("<BfBB")
_ID_TAG = bytes((_tag(_RESPONSE["request_id"].number, _LENGTH_DELIMITED),))
# Tag and length of the message, then a tag and a float for each stage.
_STAGE_TIMES = struct.Struct("<BB" + 5 * "Bf")
_STAGES_TAG, _STAGES_SIZE = _tag(_RESPONSE["stages_ms"].number, _LENGTH_DELIMITED), 5 * 5
_QUEUE, _FEATURES, _MODEL, _PAGE, _TOTAL = (
    _tag(_STAGES[name].number, _FIXED32) for name in ("queue", "features", "model", "page", "total")
)

_MOST_KEPT = 100_000


class Lines:
    """Serializes the `items` of a `RecommendResponse` or a `SimilarItemsResponse`."""

    def __init__(self) -> None:
        # By the item's identity, as two versions may show an item differently. Kept with it, so that no other
        # item gets its identity: the line begun for a page without reasons, the line without score, rank and
        # reason, and the item. Those of versions that are gone stay until there are `_MOST_KEPT`.
        self._kept: dict[int, tuple[bytes, bytes, CatalogItem]] = {}

    def wire(self, page: Sequence[PageItem]) -> bytes:
        """The field `items`, to be followed or preceded by the other fields of the message.

        `page` is best first and has at most 127 lines; the first gets rank 1.
        """
        parts: list[bytes] = []
        kept_of, score_and_rank = self._kept.get, _SCORE_AND_RANK.pack
        for rank, (item, score, reason) in enumerate(page, 1):
            begun, constant, _ = kept_of(id(item)) or self._keep(item)
            end = score_and_rank(_SCORE_TAG, score, _RANK_TAG, rank)
            if reason is None:
                parts += (begun, end)
            else:
                why = _reason(reason.item_id, reason.title)
                parts += (_ITEMS_TAG, varint(len(constant) + len(end) + len(why)), constant, end, why)
        return b"".join(parts)

    def _keep(self, item: CatalogItem) -> tuple[bytes, bytes, CatalogItem]:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        message = pb.RecommendedItem(item_id=item.item_id, title=item.title, categories=item.categories)
        constant = message.SerializeToString()
        begun = _ITEMS_TAG + varint(len(constant) + _SCORE_AND_RANK.size) + constant
        kept = self._kept[id(item)] = (begun, constant, item)
        return kept


@lru_cache(maxsize=16_384)
def _reason(item_id: str, title: str) -> bytes:
    """The field `reason` of a line."""
    why = pb.Reason(item_id=item_id, title=title).SerializeToString()
    return _REASON_TAG + varint(len(why)) + why


def head(
    model: str,
    version: int,
    cohort: str,
    degraded: int,
    request_id: str,
    *,
    queue_ms: float,
    features_ms: float,
    model_ms: float,
    page_ms: float,
    total_ms: float,
) -> bytes:
    """All of a `RecommendResponse` but its `items`."""
    encoded = request_id.encode()
    stages = _STAGE_TIMES.pack(
        _STAGES_TAG,
        _STAGES_SIZE,
        _QUEUE,
        queue_ms,
        _FEATURES,
        features_ms,
        _MODEL,
        model_ms,
        _PAGE,
        page_ms,
        _TOTAL,
        total_ms,
    )
    return b"".join(
        (_origin(model, version, cohort, degraded), stages, _ID_TAG, varint(len(encoded)), encoded)
    )


@lru_cache(maxsize=256)
def _origin(model: str, version: int, cohort: str, degraded: int) -> bytes:
    return pb.RecommendResponse(
        model=pb.ModelVersion(name=model, version=version),
        cohort=cohort,
        degraded=degraded,  # type: ignore[arg-type]  # an enum's number, which the stubs want wrapped
    ).SerializeToString()
