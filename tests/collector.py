"""A collector of traces, as OpenTelemetry's exporters meet one: OTLP over HTTP, spans kept in memory."""

from __future__ import annotations

import gzip
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_IDS = ("traceId", "spanId", "parentSpanId")


class Collector:
    """What was sent to `endpoint`."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._lock = threading.Lock()
        self._spans: list[tuple[str, Span]] = []

    @property
    def spans(self) -> list[tuple[str, Span]]:
        """Service name and span, in the order in which they came."""
        with self._lock:
            return list(self._spans)

    def take(self, sent: ExportTraceServiceRequest) -> None:
        """Keeps what an exporter sends."""
        with self._lock:
            for of_resource in sent.resource_spans:
                names = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                for scope in of_resource.scope_spans:
                    self._spans += [(names["service.name"], span) for span in scope.spans]


def from_json(body: bytes) -> ExportTraceServiceRequest:
    """A request in OTLP's JSON form, which is protobuf's but for ids: those are hexadecimal."""

    def mended(node: Any) -> Any:
        if isinstance(node, list):
            return [mended(one) for one in node]
        if not isinstance(node, dict):
            return node
        return {
            name: b64encode(bytes.fromhex(value)).decode() if name in _IDS else mended(value)
            for name, value in node.items()
        }

    return json_format.ParseDict(mended(json.loads(body)), ExportTraceServiceRequest())


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of this machine, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            is_json = self.headers["Content-Type"] == "application/json"
            collector.take(from_json(body) if is_json else ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
