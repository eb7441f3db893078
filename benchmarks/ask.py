"""One call, and the items in its answer: is a server up, and does it say what another one says?"""

from __future__ import annotations

import json
import urllib.request

import grpc

from benchmarks.target import RECOMMEND, Target
from client.riptide.v1 import recommender_pb2 as pb

_TIMEOUT_S = 20.0


def ask(target: Target, body: bytes) -> list[str] | None:
    """Ids of the items that it answers, best first, empty for an answer that is no page; None: no answer."""
    try:
        answer = _http(target, body) if target.protocol == "http" else over_grpc(target, body)
    except (OSError, grpc.RpcError):
        return None
    if target.protocol == "http":
        page = json.loads(answer)
        if isinstance(page, list):
            [page] = page
        return [item["item_id"] for item in page["items"]]
    if target.path != RECOMMEND:
        return []
    return [item.item_id for item in pb.RecommendResponse.FromString(answer).items]


def over_grpc(target: Target, body: bytes) -> bytes:
    """The bytes that are answered.

    Raises:
        grpc.RpcError: nothing is.
    """
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{target.port}", options=options) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(target.path)
        return bytes(method(body, timeout=_TIMEOUT_S))


def _http(target: Target, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{target.port}{target.path}", body, {"Content-Type": "application/json"}
    )
    # No proxy: what is asked runs here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        return bytes(answer.read())
