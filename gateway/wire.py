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
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog, CatalogItem
from gateway.page import Degraded, PageItem, Stages
from gateway.validation import MAX_REQUEST_ID_BYTES

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
_ID_BEGUN = [_ID_TAG + varint(size) for size in range(MAX_REQUEST_ID_BYTES + 1)]
"""Tag and length of a request id, by the length."""
# Tag and length of the message, then a tag and a float for each stage.
_STAGE_TIMES = struct.Struct("<BB" + 5 * "Bf")
_STAGES_TAG, _STAGES_SIZE = _tag(_RESPONSE["stages_ms"].number, _LENGTH_DELIMITED), 5 * 5
_QUEUE, _FEATURES, _MODEL, _PAGE, _TOTAL = (
    _tag(_STAGES[name].number, _FIXED32) for name in ("queue", "features", "model", "page", "total")
)

_MOST_KEPT = 100_000
"""Of each catalogue that is open."""


_Kept: TypeAlias = "dict[int, tuple[()] | tuple[bytes, bytes]]"
"""By an item's key: its line as it is begun on a page without reasons, and the line without score, rank and
reason. Nothing for a key that is no item's."""


class Lines:
    """Serializes the `items` of a `RecommendResponse` or a `SimilarItemsResponse`."""

    def __init__(self) -> None:
        # Two versions may show an item differently. What is kept of one goes with its catalogue.
        self._kept: WeakKeyDictionary[Catalog, _Kept] = WeakKeyDictionary()

    def of(self, catalog: Catalog) -> CatalogLines:
        """For pages of a version's items. To be made anew for each batch: it keeps the catalogue open."""
        kept = self._kept.get(catalog)
        if kept is None:
            kept = self._kept[catalog] = {}
        return CatalogLines(catalog, kept)


class CatalogLines:
    """Serializes the field `items` of one catalogue's pages, to be followed or preceded by the other fields.

    Pages have at most 127 lines, the best first; it gets rank 1.
    """

    def __init__(self, catalog: Catalog, kept: _Kept) -> None:
        """`kept` is for `catalog` alone, and holds up to `_MOST_KEPT` lines."""
        self._catalog, self._kept = catalog, kept

    def scored(self, keys: Sequence[int], scores: Sequence[float]) -> bytes:
        """The lines of what the model answered. Keys that are no items' are left out, as is 0, an empty slot.

        Almost every page is made here, so nothing is made on the way that is not in its bytes.
        """
        parts: list[bytes] = []
        rank, kept_of, score_and_rank = 0, self._kept.get, _SCORE_AND_RANK.pack
        for key, score in zip(keys, scores, strict=True):
            line = kept_of(key)
            if line is None:
                line = self._keep(key, self._catalog.get(key))
            if line:
                rank += 1
                parts += (line[0], score_and_rank(_SCORE_TAG, score, _RANK_TAG, rank))
        return b"".join(parts)

    def wire(self, page: Sequence[PageItem]) -> bytes:
        """The lines of any page of this catalogue."""
        parts: list[bytes] = []
        for rank, (key, item, score, reason) in enumerate(page, 1):
            begun, constant = self._kept.get(key) or self._keep(key, item)
            end = _SCORE_AND_RANK.pack(_SCORE_TAG, score, _RANK_TAG, rank)
            if reason is None:
                parts += (begun, end)
            else:
                why = _reason(reason.item_id, reason.title)
                parts += (_ITEMS_TAG, varint(len(constant) + len(end) + len(why)), constant, end, why)
        return b"".join(parts)

    def _keep(self, key: int, item: CatalogItem | None) -> Any:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        if item is None:
            self._kept[key] = ()
            return ()
        message = pb.RecommendedItem(item_id=item.item_id, title=item.title, categories=item.categories)
        constant = message.SerializeToString()
        begun = _ITEMS_TAG + varint(len(constant) + _SCORE_AND_RANK.size) + constant
        self._kept[key] = begun, constant
        return begun, constant


@lru_cache(maxsize=16_384)
def _reason(item_id: str, title: str) -> bytes:
    """The field `reason` of a line."""
    why = pb.Reason(item_id=item_id, title=title).SerializeToString()
    return _REASON_TAG + varint(len(why)) + why


def response(
    model: str,
    version: int,
    cohort: str,
    degraded: Degraded,
    request_id: str,
    stages_ms: Stages,
    items: bytes,
) -> bytes:
    """A `RecommendResponse`.

    Args:
        model: the model's name.
        version: that answered.
        cohort: that the call belongs to.
        degraded: why it is not the model's full answer.
        request_id: of at most 128 bytes.
        stages_ms: how long each stage took, and all of them.
        items: its lines, of `CatalogLines`.
    """
    queue_ms, features_ms, model_ms, page_ms, total_ms = stages_ms
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
    origin = _origin(model, version, cohort, degraded._value_)  # `value` is a property, and slow
    encoded = request_id.encode()
    return b"".join((origin, stages, _ID_BEGUN[len(encoded)], encoded, items))


@lru_cache(maxsize=256)
def _origin(model: str, version: int, cohort: str, degraded: str) -> bytes:
    return pb.RecommendResponse(
        model=pb.ModelVersion(name=model, version=version),
        cohort=cohort,
        degraded=f"DEGRADED_REASON_{degraded}",
    ).SerializeToString()
