"""The lines of a page in protobuf's wire format, put together from parts that are kept serialized.

Filling ten `RecommendedItem` messages took longer than anything else in a request. Most of a line is the same
on every page, so that part is serialized once per item; score, rank and reason are appended. Protobuf allows
that: fields may come in any order, and serialized messages are merged by writing one after the other
(https://protobuf.dev/programming-guides/encoding/). `tests/unit/gateway/test_wire.py` holds it to the .proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import CatalogItem
from gateway.page import PageItem

_LENGTH_DELIMITED, _FIXED32, _VARINT = 2, 5, 0
_ITEM = pb.RecommendedItem.DESCRIPTOR.fields_by_name


def _tag(field_number: int, wire_type: int) -> int:
    tag = field_number << 3 | wire_type
    assert tag < 128, "a tag of more than one byte"
    return tag


_ITEMS_TAG = bytes((_tag(pb.RecommendResponse.DESCRIPTOR.fields_by_name["items"].number, _LENGTH_DELIMITED),))
_REASON_TAG = bytes((_tag(_ITEM["reason"].number, _LENGTH_DELIMITED),))
_SCORE_TAG, _RANK_TAG = _tag(_ITEM["score"].number, _FIXED32), _tag(_ITEM["rank"].number, _VARINT)
# Tag and value of the score, tag and value of the rank. Ranks end at 100, so they are varints of one byte.
_SCORE_AND_RANK = struct.Struct("<BfBB")

_MOST_KEPT = 100_000


class Lines:
    """Serializes the `items` of a `RecommendResponse` or a `SimilarItemsResponse`."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[CatalogItem, bytes]] = {}

    def wire(self, page: Sequence[PageItem]) -> bytes:
        """The field `items`, to be followed or preceded by the other fields of the message.

        `page` is best first and has at most 127 lines; the first gets rank 1.
        """
        parts: list[bytes] = []
        for rank, (item, score, reason) in enumerate(page, 1):
            line = self._constant(item) + _SCORE_AND_RANK.pack(_SCORE_TAG, score, _RANK_TAG, rank)
            if reason is not None:
                why = pb.Reason(item_id=reason.item_id, title=reason.title).SerializeToString()
                line += _REASON_TAG + _varint(len(why)) + why
            parts += (_ITEMS_TAG, _varint(len(line)), line)
        return b"".join(parts)

    def _constant(self, item: CatalogItem) -> bytes:
        kept = self._kept.get(item.item_id)
        # By identity: two versions may show an item differently, and comparing it whole costs what is saved.
        if kept is not None and kept[0] is item:
            return kept[1]
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        message = pb.RecommendedItem(item_id=item.item_id, title=item.title, categories=item.categories)
        constant = message.SerializeToString()
        self._kept[item.item_id] = (item, constant)
        return constant


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
